"""Lab masks: sample when the masks are there.

Some requests have a grammar now, which allows few of the tokens at each place; for the next place it has to know the
token before, and `scheduler.update` tells it. This is chapter 5 with its forward pass launched in two, the scores and
the sampling that heeds the masks. It writes the masks together with the rest of a batch, when the tokens of the batch
before are still on the GPU, so it gives forbidden ones. `slot.write(batch, masks=False)` leaves the masks out;
`slot.write_masks()` writes them, and `slot.upload_masks(non_blocking=True)` copies them. Make every token an allowed
one, without a bubble.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight: N + 1 is launched while N is on the GPU, and the GPU carries the tokens over."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed = cuda.Event(), cuda.Event()
        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.in_flight = None                         # the batch on the GPU, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.slot.write(batch)                    # with the masks, which go along with the next upload
            self.launch()
            self.sample(batch)
        return self.retire(previous)                  # N: its tokens move the grammars on

    def launch(self):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU
            self.model.logits(self.slot)              # launch the forward pass, as far as the scores

    def sample(self, batch):
        with self.cuda.stream(self.compute):
            self.model.sample(self.slot)              # launch the sampling behind the forward pass
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.downloaded[self.slot].record(self.d2h)
        self.in_flight = batch, self.slot, tokens
        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read

    def retire(self, previous):
        if not previous:
            return []
        batch, slot, tokens = previous
        self.downloaded[slot].synchronize()           # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
