"""Lab streams: three streams, kept in order by the host.

Chapter 1 has all its device work in one stream. Give the upload, the forward pass and the download a stream of their
own each, and let no copy block the host. Now nothing orders the three any more, so the host has to: it waits for each
before it hands out what comes next. Three waits in a step are enough, and it is not going to be faster yet.

    acb lab watch            judges this engine whenever it is saved
    acb lab hint             a hint, from a question to nearly the line
    acb lab reset            starts anew, and keeps what was here
"""


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
        self.slot.upload()                            # host -> device, the host waits
        self.model.forward(self.slot)                 # launch the forward pass and sampling
        tokens = self.slot.download()                 # device -> host, the host waits
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
