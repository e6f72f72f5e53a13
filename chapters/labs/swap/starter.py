"""Lab swap: two slots that take turns.

Five minutes, for the swap alone. To prepare a batch while another one is on the GPU takes a second slot, or the host
would write where the GPU reads. Give this engine one, and let the batches take turns with the two: 0, 2, 4 in one
slot, 1, 3, 5 in the other. The host still waits at the end of each step, so nothing is faster yet. All that is done
for a batch has to be done with one and the same slot.

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
