"""Lab batch, solved."""


class Engine:
    """One batch at a time: the CPU and the GPU take turns."""

    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda = model, scheduler, cuda
        self.slot = model.new_slot()

    def run(self):
        """Serves until every request is finished; yields each request as it finishes."""
        while self.scheduler.has_work():
            yield from self.step()

    def step(self):
        batch = self.scheduler.schedule()             # pick requests, assign KV pages
        self.slot.write(batch)                        # fill the host input buffer
        self.slot.upload(non_blocking=True)           # host -> device
        self.model.forward(self.slot)                 # launch the forward pass and sampling
        tokens = self.slot.download()                 # device -> host, the host waits
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
