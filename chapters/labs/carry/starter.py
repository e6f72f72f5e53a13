"""Lab carry: launch the next batch before this one is done.

From the last kernel of batch N to the first one of N + 1 the GPU waits for the host, which takes in N's tokens and
fills them in. Leave them on the GPU: `model.carry_over(slot, previous)` copies the tokens of the batch in `previous` to
where the batch in `slot` has a 0, as work of the current stream. Then N + 1 can be launched before N is done.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two slots: while one batch is on the GPU, the CPU prepares the next."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed, self.downloaded = cuda.Event(), cuda.Event(), cuda.Event()
        self.in_flight = None                         # the batch on the GPU, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        if batch:
            self.slot.write(batch)                    # all but the token ids that N has not produced yet
        finished = self.retire()                      # N
        if batch:
            self.slot.fill()                          # the token ids that N has produced
            self.launch(batch)
        return finished

    def launch(self, batch):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.forward(self.slot)             # launch the forward pass and sampling
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.downloaded.record(self.d2h)
        self.in_flight = batch, tokens
        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read

    def retire(self):
        if not self.in_flight:
            return []
        batch, tokens = self.in_flight
        self.in_flight = None
        self.downloaded.synchronize()                 # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
