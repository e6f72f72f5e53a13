"""Chapter 3: events order the streams; the host waits once, at the end.

What changes: a stream that depends on another waits for an event recorded there. `wait_event` does not stop the host:
it holds back the stream. So upload, forward pass and download are all queued at once, and the one wait that is left
is the host's own, for the tokens.

What it buys: two host waits less, and a GPU that starts each piece as soon as the one before is done. What it does
not buy: while the host schedules and writes the next batch, the GPU still has nothing to run.
"""


class Engine:
    """Three streams, kept in order by events; the host waits only for the tokens."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot = model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed, self.downloaded = cuda.Event(), cuda.Event(), cuda.Event()

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work():
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # pick requests, assign KV pages
        self.slot.write(batch)                        # fill the host input buffer
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
        self.downloaded.synchronize()                 # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
