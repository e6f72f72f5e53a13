"""Bug hunt unseen: the masks are right, and sampling does not see them.

Chapter 7's engine. Each mask is written after the batch before has told its tokens, and uploaded before sampling is
launched; on a GPU it is nearly always right. Now and then a request gets a token that its grammar forbids. Find the
bug, and repair it with as small a change as you can, so that the engine is as fast as chapter 7.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight: the second is computed, and sampled once the host has its masks."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.masked = cuda.Event(), cuda.Event()
        self.computed, self.downloaded = cuda.Event(), cuda.Event()
        self.in_flight = None                         # the batch on the GPU, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.slot.write(batch, masks=False)       # all but what N has not said yet: token ids, and so masks
            self.launch()
        finished = self.retire(previous)              # N: its tokens move the grammars on
        if batch:
            self.sample(batch)
        return finished

    def launch(self):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU
            self.model.logits(self.slot)              # launch the forward pass, as far as the scores

    def sample(self, batch):
        self.slot.write_masks()                       # what N's tokens allow next
        with self.cuda.stream(self.h2d):
            self.slot.upload_masks(non_blocking=True)
        self.masked.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or sampling would heed masks that are not there yet
        with self.cuda.stream(self.compute):
            self.model.sample(self.slot)              # launch the sampling behind the forward pass
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.downloaded.record(self.d2h)
        self.in_flight = batch, tokens
        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read

    def retire(self, previous):
        if not previous:
            return []
        batch, tokens = previous
        self.downloaded.synchronize()                 # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
