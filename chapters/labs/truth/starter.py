"""Lab truth: where each request is.

Five minutes, for two calls. Each decode takes guesses along, drafts; `model.verify(slot)` runs them all in one
forward pass, and keeps what was guessed right. How many that is in N, the host learns too late to write N + 1: so it
writes each decode as far along as it can be, and without token ids. Two pieces of device work know better:
`model.correct(slot)` writes over that where N has left each request, and its newest token, and `model.draft(slot)`
writes the guesses behind it. Nobody calls them. Make every token right, and every draft that can be, without a wait.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight: the second begins where the GPU, not the CPU, knows that the first has ended."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed = cuda.Event(), cuda.Event()
        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.in_flight = None                         # the batch on the GPU, its slot, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, as if all drafts of N were right
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.slot.write(batch)                    # decodes: where they are at most, without token ids
            self.launch(batch)
        return self.retire(previous)                  # N

    def launch(self, batch):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.verify(self.slot)              # launch the forward pass, and keep what was guessed right
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not verified yet
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
        return self.scheduler.update(batch, tokens)   # append, finish, free pages; take off what was not right
