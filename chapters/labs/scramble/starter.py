"""Bug hunt scramble: three batches in flight, every answer wrong.

Chapter 5 keeps two batches in flight. This engine goes a batch further, so that the GPU never runs out of work, and it
takes care of its pinned buffers. But its answers are those of others. Find the bug, and repair it with as small a
change as you can, so that the engine is as fast as chapter 5. To compare it with the chapter line by line would be a
pity.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Three batches in flight: the GPU takes from one to the next what the CPU has not seen."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.computed = cuda.Event()
        self.uploaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.in_flight = []                           # batches, their slots, and where their tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        if batch:
            self.uploaded[self.slot].synchronize()    # or write would change what is still being copied
            self.slot.write(batch)                    # all but the token ids that N has not produced yet
            self.launch(batch)
        if batch and len(self.in_flight) <= 2:        # the GPU has work for two more
            return []
        return self.retire(*self.in_flight.pop(0))    # the oldest

    def launch(self, batch):
        with self.cuda.stream(self.h2d):
            self.slot.upload(non_blocking=True)       # host -> device
        self.uploaded[self.slot].record(self.h2d)
        self.compute.wait_event(self.uploaded[self.slot])     # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU
            self.model.forward(self.slot)             # launch the forward pass and sampling
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not sampled yet
        with self.cuda.stream(self.d2h):
            tokens = self.slot.download(non_blocking=True)    # device -> host
        self.downloaded[self.slot].record(self.d2h)
        self.in_flight.append((batch, self.slot, tokens))
        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read

    def retire(self, batch, slot, tokens):
        self.downloaded[slot].synchronize()           # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
