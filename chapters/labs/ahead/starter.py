"""Lab ahead: schedule while a batch is in flight.

Ten minutes, for `in_flight` alone. Here the host launches a batch, waits for it, and schedules the next one when the
GPU has nothing to do. The scheduler goes by counts, so it can pick batch N + 1 before N's tokens are in. Let `step`
return with a batch on the GPU, and the next step schedule N + 1 before it retires N. Writing N + 1 still has to come
after that: it takes N's tokens. `schedule` returns None when all that is left is in flight.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two slots, one batch at a time: it is launched, and then waited for."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed, self.downloaded = cuda.Event(), cuda.Event(), cuda.Event()
        self.in_flight = None                         # the batch on the GPU, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work():
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # pick requests, assign KV pages
        self.slot.write(batch)                        # fill the host input buffer
        self.launch(batch)
        return self.retire()

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
        self.slot, self.other = self.other, self.slot     # the next batch goes to the other one

    def retire(self):
        batch, tokens = self.in_flight
        self.in_flight = None
        self.downloaded.synchronize()                 # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
