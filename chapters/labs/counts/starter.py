"""Lab counts: penalties, without the host.

Five minutes, for a line in the right place. Requests have penalties for tokens that there were, and seeds. This is
chapter 5 with its forward pass in two, the scores and a draw that heeds a state: how often each token was in each
request's prompt and answer so far. Nobody counts, so the draw thinks that there was nothing.
`model.count(slot, state)` is device work: it counts the inputs of the batch in a slot, as they are when it runs. Make
every draw know of all tokens before it, without a wait.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight: the GPU takes from one to the next what the CPU has not seen."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.state = model.new_state()                # counts of tokens, a row for each running request: for both slots
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed = cuda.Event(), cuda.Event()
        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.in_flight = None                         # the batch on the GPU, its slot, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.slot.write(batch)                    # all but the token ids that N has not produced yet
            self.launch(batch)
        return self.retire(previous)                  # N

    def launch(self, batch):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU
            self.model.logits(self.slot)              # launch the forward pass, as far as the scores
            self.model.sample(self.slot, self.state)  # and a draw, by settings, counts and a hash
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
