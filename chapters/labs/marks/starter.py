"""Lab marks: records and waits that order something.

Five minutes, for `record` and `wait_event` alone. This is chapter 3's engine, line for line, but two of the events
order nothing: of one the wait and the record have changed places, of the other the record marks the wrong stream. No
error says so, and on an idle GPU the answers are right. The judge names the lines. Put them right; no line is
missing.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
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
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        self.uploaded.record(self.h2d)
        with self.cuda.stream(self.compute):
            self.model.forward(self.slot)             # launch the forward pass and sampling
        self.computed.record()
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.downloaded.record(self.d2h)
        self.downloaded.synchronize()                 # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
