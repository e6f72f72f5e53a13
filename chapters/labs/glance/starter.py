"""Lab glance: look before you launch.

Five minutes, for two lines. `hand_out` takes in the batch in flight if a first token is in it and has come, and does
nothing if not: it asks an event, and never waits. Nobody calls it, so that first tokens lie on the host while it
schedules, writes and launches the next batch. Call it where that is worth most. Somebody who is handed a token may
have enough, and somebody else may arrive: the next batch is to be decided after that, if it can be.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight, but for a batch that is done and that somebody waits for."""

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
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        if batch:
            self.slot.write(batch)                    # all but the token ids that N has not produced yet
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.launch(batch)
        yield from self.retire(previous)              # N

    def hand_out(self):
        if not self.in_flight:
            return []
        batch, slot, tokens = self.in_flight
        if not (batch.first_tokens and self.downloaded[slot].query()):
            return []                                 # launch N + 1 first: nobody waits, or N is not done
        self.in_flight = None                         # or N would be retired once more
        return self.scheduler.update(batch, tokens)   # its tokens are there: `query` has said so

    def launch(self, batch):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU
            self.model.forward(self.slot)             # launch the forward pass and sampling
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
