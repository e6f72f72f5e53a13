"""The labs that build: from each chapter's engine to the next one's, and one before the first."""

from .lab import Lab

ONE_BY_ONE = (
    (
        '''class Engine:
    """One batch at a time: the CPU and the GPU take turns."""
''',
        '''from dataclasses import replace

import numpy as np


class Engine:
    """One request at a time: whoever is in a batch waits for all who come before."""
''',
    ),
    (
        """\
        self.slot.write(batch)                        # fill the host input buffer
        self.slot.upload()                            # host -> device, the host waits
        self.model.forward(self.slot)                 # launch the forward pass and sampling
        tokens = self.slot.download()                 # device -> host, the host waits
        return self.scheduler.update(batch, tokens)   # append, finish, free pages
""",
        """\
        tokens = []
        for row in batch.rows:                        # one request after another
            self.slot.write(replace(batch, rows=[row]))   # fill the host input buffer
            self.slot.upload()                        # host -> device, the host waits
            self.model.forward(self.slot)             # launch the forward pass and sampling
            tokens.extend(self.slot.download())       # device -> host, the host waits
        return self.scheduler.update(batch, np.array(tokens))     # append, finish, free pages
""",
    ),
)

BUILDERS = (
    Lab(
        name="batch",
        kind="build",
        title="One forward pass for a batch, and one wait",
        start="ch1",
        changes=ONE_BY_ONE,
        goal="ch1",
        answer=(("self.slot.upload()                            # host -> device, the host waits",
                 "self.slot.upload(non_blocking=True)           # host -> device"),),
        waits=1,
        task="""
            This engine serves the requests of a batch one after another: for each there is a forward pass, and the host
            waits twice. Make it run a whole batch in one forward pass, as chapter 1 does. Then let the host wait only
            once in a step, where chapter 1 still waits twice. The answers must stay right.
        """,
        hints=(
            "How often does the host wait in a step of 16 requests, and what for? What would the GPU do if it got all of "
            "them at once?",
            "`slot.write` takes a whole batch, and `slot.download` returns one token for each row that has one, in the "
            "order of the rows: just what `scheduler.update` takes. No loop over rows is needed.",
            "Two copies are left that make the host wait. All three pieces of work are in one stream, and a stream keeps "
            "its order. Who would be harmed if the host did not wait for the upload? And for the download?",
            "`self.slot.write(batch)`, then `self.slot.upload(non_blocking=True)`, the forward pass, and a download that "
            "blocks: the host is going to read what it brings.",
        ),
        others=(
            "Both copies with `non_blocking=True`, and one `self.cuda.synchronize()` before `update`.",
        ),
    ),
    Lab(
        name="streams",
        kind="build",
        title="Three streams, kept in order by the host",
        start="ch1",
        goal="ch2",
        waits=3,
        streams=3,
        task="""
            Chapter 1 has all its device work in one stream. Give the upload, the forward pass and the download a stream
            of their own each, and let no copy block the host. Now nothing orders the three any more, so the host has to:
            it waits for each before it hands out what comes next. Three waits in a step are enough, and it is not going
            to be faster yet.
        """,
        hints=(
            "Streams do not wait for each other. Which of the three pieces needs what another one makes, and who reads "
            "what the last one brings?",
            "`cuda.Stream()` makes a stream. What is launched inside of `with self.cuda.stream(self.h2d):` goes into that "
            "one. `stream.synchronize()` makes the host wait for all that is in it by then.",
            "`upload(non_blocking=True)` returns at once. From there on a wait is missing in three places: before the "
            "forward pass, before the download, and before `update`.",
            "Behind each `with` block comes `synchronize` of the stream that it was for: `self.h2d.synchronize()` behind "
            "the upload, and so on.",
        ),
        others=(
            "A copy that blocks is a wait as well: with `self.slot.upload()` in the stream h2d, `self.h2d.synchronize()` "
            "can go. It is the same wait, in another place.",
            "Asking is waiting too: `while not self.h2d.query(): pass`.",
        ),
    ),
    Lab(
        name="events",
        kind="build",
        title="Let the GPU keep its streams in order",
        start="ch2",
        goal="ch3",
        waits=1,
        streams=3,
        task="""
            Here the host waits for each stream only in order to give the next one its work. Let the GPU keep the order:
            queue the upload, the forward pass and the download of a batch at once, each in the stream it is in now. The
            host waits once in a step, for the tokens.
        """,
        hints=(
            "Three times a step the host waits. In which of the three does it need itself what it waits for?",
            "An event is a mark in a stream. `event.record(stream)` sets it behind what is in that stream by then; "
            "`other.wait_event(event)` holds back what is put into another stream from then on. The host goes on at once.",
            "A wait is for the latest record that there is when it is called; if there is none, it is for nothing. So "
            "which comes first, record or wait, and which of them before the work that has to be held back?",
            "Behind the upload `self.uploaded.record(self.h2d)`, then `self.compute.wait_event(self.uploaded)`, then the "
            "forward pass. The same from compute to d2h. The host waits for an event behind the download.",
        ),
        others=(
            "`self.compute.wait_stream(self.h2d)` is a record and a wait in one, with an event of its own.",
            "The last wait can be for the stream, `self.d2h.synchronize()`, as long as nothing else is in it.",
        ),
    ),
    Lab(
        name="slots",
        kind="build",
        title="Prepare the next batch while this one runs",
        start="ch3",
        goal="ch4",
        waits=1,
        task="""
            While batch N is on the GPU, the host waits for its tokens. Only then does it schedule and write batch N + 1,
            and meanwhile the GPU has nothing to do. Prepare N + 1 while N runs. The scheduler can do that: it goes by
            counts, never by tokens. `slot.write` puts a 0 where a token of N is missing, and `slot.fill()` writes those
            tokens once `update` has taken them in.
        """,
        hints=(
            "What of the host's work for batch N + 1 can be done without N's tokens?",
            "Draw the order of schedule, write, wait, update, fill and launch for two batches. Which buffer does `write` "
            "write to, and who may still be reading it?",
            "With two slots, one is on the GPU while the other is written, and they change places with every launch. Keep "
            "in an attribute which batch is on the GPU and where its tokens will be. `run` has to go on while there is "
            "one, and `schedule` returns None when all that is left is on the GPU.",
            "A step is: `schedule`, `self.slot.write(batch)`, then wait for N and `update`, then `self.slot.fill()` and "
            "the launch, which ends in `self.slot, self.other = self.other, self.slot`.",
        ),
        others=(
            "One slot will do, if the host waits for `uploaded` before it writes: by that time the upload is long over.",
            "Three slots, in turn.",
        ),
    ),
    Lab(
        name="carry",
        kind="build",
        title="Launch the next batch before this one is done",
        start="ch4",
        goal="ch5",
        waits=1,
        task="""
            From the last kernel of batch N to the first one of N + 1 the GPU waits for the host, which takes in N's
            tokens and fills them in. Leave them on the GPU: `model.carry_over(slot, previous)` copies the tokens of the
            batch in `previous` to where the batch in `slot` has a 0, as work of the current stream. Then N + 1 can be
            launched before N is done.
        """,
        hints=(
            "Who needs N's tokens before N + 1 can be launched: the host, or the GPU alone?",
            "If they never leave the GPU, there is no need to wait for N first. So what comes first now, launching N + 1 "
            "or taking in N? And between which two pieces of work does the carry-over belong?",
            "Two batches are in flight now. What has to be remembered of each of them? And which event is recorded for "
            "N + 1 before the host has waited for N?",
            "In the stream compute: `self.model.carry_over(self.slot, self.other)`, then the forward pass. A `downloaded` "
            "for each slot, and the slot in `in_flight` as well. `step` takes N out of `in_flight`, launches N + 1, and "
            "then retires N.",
        ),
        others=(
            "A new event for each batch, `self.d2h.record_event()`, kept in `in_flight`, in place of one for each slot.",
            "Three slots, in turn, with the carry-over from the one before.",
        ),
    ),
    Lab(
        name="graphs",
        kind="build",
        title="Launch a batch with one call",
        start="ch5",
        goal="ch6",
        waits=1,
        task="""
            To launch a forward pass takes the host a call for each of its kernels, which are more than a thousand, and
            the GPU waits for them inside the batch. Before serving, capture carry-over and forward pass as CUDA graphs,
            for both slots and for every number of rows in `model.decode_sizes`; then replay them for batches of decodes.
            `slot.pad(rows)` writes a batch of nothing but padding. `batch.padded(sizes)` pads a batch of decodes to the
            next of these sizes, and its `decode_size` is 0 if no graph can be replayed for it.
        """,
        hints=(
            "A graph reads and writes the memory that it was captured with. Which memory is that, and how many graphs are "
            "needed for one size?",
            "`graph = cuda.CUDAGraph()`, and inside of `with cuda.graph(graph, pool=pool, stream=self.compute):` what is "
            "to be captured: nothing of it runs then. `graph.replay()` launches it. `cuda.graph_pool_handle()` makes a "
            "pool, and all graphs may share it, because one batch runs after another.",
            "For each of `model.decode_sizes` and each of the two slots: `slot.pad(rows)`, then capture the carry-over "
            "from the other slot and the forward pass. In `launch`, look the graph up by slot and size; what has none "
            "runs as before.",
            "`self.graphs[slot, rows]` in `__init__`; in `step`, `batch = batch.padded(self.model.decode_sizes)` before "
            "the write; in `launch`, `graph = self.graphs.get((self.slot, batch.decode_size))` and `graph.replay()`.",
        ),
        others=(
            "The forward pass alone in the graph, and the carry-over launched before the replay: one call more.",
            "A pool for each graph: the same order and the same time, but more memory.",
        ),
    ),
)  # fmt: skip
