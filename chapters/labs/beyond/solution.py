"""Chapter 10 in other words: two batches in flight, for which pages are reserved."""


class Engine:
    """Batches in flight: each begins where the GPU, not the CPU, knows that the one before has ended."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slots = [model.new_slot() for _ in range(3)]
        self.h2d, self.compute, self.d2h = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self.uploaded, self.computed = cuda.Event(), cuda.Event()
        self.downloaded = {slot: cuda.Event() for slot in self.slots}
        self.in_flight = []                           # batches on the GPU, their slots, and where their tokens will be

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work() or self.in_flight:
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # as if all drafts in flight were right
        if batch:
            self.launch(batch, self.slots[0])
        if batch and len(self.in_flight) < 2:
            return []                                 # the GPU may have one more
        return self.retire()                          # the oldest

    def launch(self, batch, slot):
        slot.write(batch)                             # decodes: where they are at most, without token ids
        with self.cuda.stream(self.h2d):
            slot.upload(non_blocking=True)            # host -> device
        self.uploaded.record(self.h2d)
        self.compute.wait_event(self.uploaded)        # or compute would read inputs that are not there yet
        with self.cuda.stream(self.compute):
            self.model.correct(slot)                  # where N has left each request, and its newest token
            self.model.draft(slot)                    # k guesses behind that
            self.model.verify(slot)                   # launch the forward pass, and keep what was guessed right
        self.computed.record(self.compute)
        self.d2h.wait_event(self.computed)            # or d2h would copy tokens that are not verified yet
        with self.cuda.stream(self.d2h):
            tokens = slot.download(non_blocking=True) # device -> host
        self.downloaded[slot].record(self.d2h)
        self.in_flight.append((batch, slot, tokens))
        self.slots.append(self.slots.pop(0))          # the next may not be written where this one is read

    def retire(self):
        if not self.in_flight:
            return []
        batch, slot, tokens = self.in_flight.pop(0)
        self.downloaded[slot].synchronize()           # or update would read tokens that have not arrived
        return self.scheduler.update(batch, tokens)   # append, finish, free pages; take off what was not right
