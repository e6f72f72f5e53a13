"""Chapter 1: one batch at a time; the CPU and the GPU take turns.

This is all of continuous batching: every step picks the requests that run, uploads what they need, runs the model
once and hands each request its next token. Requests join and leave between steps.

What it does not do: overlap anything. While the CPU schedules, writes and updates, the GPU has nothing to run; while
the GPU computes, the CPU waits for its tokens.
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
