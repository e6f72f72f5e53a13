"""Lab events: let the GPU keep its streams in order.

Here the host waits for each stream only in order to give the next one its work. Let the GPU keep the order: queue the
upload, the forward pass and the download of a batch at once, each in the stream it is in now. The host waits once in a
step, for the tokens.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Three streams, kept in order by a host that waits for each."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot = model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work():
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # pick requests, assign KV pages
        self.slot.write(batch)                        # fill the host input buffer
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.h2d.synchronize()                        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.forward(self.slot)             # launch the forward pass and sampling
        self.compute.synchronize()                    # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.d2h.synchronize()                        # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
