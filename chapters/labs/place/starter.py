"""Lab place: the one line that moves pages.

Five minutes. When no page is free, the newest request gives way: its pages are copied to the host's memory, and back
when there is room. `move` does that, with all the waits it needs, and nobody calls it. Call it once, in the right
place: a schedule may move pages and have no batch, and what N still writes may not be copied before.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


class Engine:
    """Two batches in flight, and beside the second the pages that make room for a third."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot, self.other = model.new_slot(), model.new_slot()
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.swap = cuda.Stream()
        self.uploaded, self.computed, self.swapped = cuda.Event(), cuda.Event(), cuda.Event()
        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}
        self.in_flight = None                         # the batch on the GPU, its slot, and where its tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU
        previous, self.in_flight = self.in_flight, None
        if batch:
            self.slot.write(batch)                    # all but the token ids that N has not produced yet
            self.launch(batch)
        return self.retire(previous)                  # N

    def move(self):
        self.compute.wait_event(self.swapped)         # or N + 1 would use pages that N's copies still read or write
        self.swap.wait_event(self.computed)           # or pages would be copied that N still writes
        with self.cuda.stream(self.swap):
            self.model.swap(self.scheduler.moves)     # device -> host, and host -> device
        self.swapped.record(self.swap)

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
