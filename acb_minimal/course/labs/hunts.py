"""The bug hunts: eight engines, each with one bug that engines in use have had. A bug is a small change of a chapter."""

from .lab import Change, Lab

FIND = """
    Find the bug, and repair it with as small a change as you can, so that the engine is as fast as {goal}. To compare it
    with the chapter line by line would be a pity.
"""


def hunt(name: str, goal: str, task: str, changes: tuple[Change, ...], **more) -> Lab:
    """A bug hunt that starts from the chapter that it has to be as fast as."""
    number = goal.removeprefix("ch")
    return Lab(name=name, kind="hunt", start=goal, goal=goal, changes=changes,
               task=task + FIND.format(goal=f"chapter {number}"), **more)  # fmt: skip


HUNTS = (
    hunt(
        "haste",
        "ch4",
        title="Right answers, as long as the copy is slow",
        wins=False,
        task="""
            Chapter 4's engine, and its author was in a hurry: the upload starts as early as it can. Every answer that it
            has given so far was right. The judge does not believe in luck.
        """,
        changes=(
            ("            self.slot.fill()                          # the token ids that N has produced\n", ""),
            (
                "            self.slot.upload(non_blocking=True)       # host -> device\n",
                "            self.slot.upload(non_blocking=True)       # host -> device\n"
                "            self.slot.fill()                          # the token ids that N has produced\n",
            ),
        ),
        found="A pinned buffer is written again while its copy is in flight",
        threads=("NVIDIA/TensorRT-LLM#15546", "sgl-project/mini-sglang#103"),
        hints=(
            "When does a non-blocking copy read what it copies?",
            "`upload` returns before anything has been copied. What does the host do with the buffer after that?",
            "`fill` writes token ids to the host's buffer, the one that `upload` is reading meanwhile. Which of the two "
            "has to come first?",
            "`self.slot.fill()` belongs before the upload, not behind it.",
        ),
        others=(
            "A wait for the upload before `fill` is no way out: what was copied lacks the tokens. They would need a copy "
            "of their own.",
            "An engine that cannot wait with its write makes a new pinned copy for every step, and leaves this one alone.",
        ),
    ),
    hunt(
        "idle",
        "ch5",
        title="Asynchronous by name, slow as chapter 1",
        task="""
            Two slots, three streams, events, carry-over: nothing that chapter 5 has is missing here. The answers are
            right, and no token can be lost. But a step takes as long as in chapter 1.
        """,
        changes=(
            (
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n"
                "        previous, self.in_flight = self.in_flight, None\n",
                "        previous, self.in_flight = self.in_flight, None\n"
                "        finished = self.retire(previous)              # N: nobody is to wait for what is there\n"
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone\n",
            ),
            ("        return self.retire(previous)                  # N\n", "        return finished\n"),
        ),
        fix=(
            ("        finished = self.retire(previous)              # N: nobody is to wait for what is there\n", ""),
            ("        return finished\n", "        return self.retire(previous)                  # N\n"),
        ),
        found="Asynchronous by flag, synchronous in fact",
        threads=("sgl-project/sglang-omni#1608", "vllm-project/vllm-omni#4442"),
        hints=(
            "At the moment at which the host waits, what else has the GPU got to do?",
            "`acb lab check` names the line in which the host waits while the GPU runs dry. That line is in chapter 5 as "
            "well. When does it come there?",
            "Between the wait for N and the launch of N + 1 the host takes in tokens, schedules and writes, and the GPU "
            "has nothing. In which order is it the other way round?",
            "Retire N as the last thing that `step` does, after `self.launch(batch)`.",
        ),
        others=(
            "To retire N after `write` and before `launch` helps by half: then scheduling is hidden, as in chapter 4, and "
            "taking in the tokens is not.",
        ),
    ),
    hunt(
        "late",
        "ch5",
        title="Right answers, one batch late",
        task="""
            Chapter 5 with all its events, and right under every schedule. But it is as slow as if there were no second
            slot: the tokens of batch N reach the host when batch N + 1 is done.
        """,
        changes=(
            ("        self.downloaded[self.slot].record(self.d2h)\n", ""),
            (
                "        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read\n",
                "        self.slot, self.other = self.other, self.slot     # N + 2 may not be written where N + 1 is read\n"
                "        self.downloaded[self.slot].record(self.d2h)\n",
            ),
        ),
        found="An event that was recorded again: the wait is for another batch",
        threads=("sgl-project/sglang#31072",),
        hints=(
            "Which batch's download does the host really wait for when it retires N?",
            "An event knows its latest record only. Go through two steps on paper: which of the two events is recorded "
            "for batch 0, and which for batch 1?",
            "Behind the swap, `self.slot` is the other slot. Which lines of `launch` come behind it that should not?",
            "`self.downloaded[self.slot].record(self.d2h)` has to come before `self.slot, self.other = ...`.",
        ),
        others=(
            "`self.downloaded[self.other]`, where it stands: behind the swap, the other slot is the one that was launched.",
            "A new event for each batch, kept in `in_flight`: it cannot be recorded again.",
        ),
    ),
    hunt(
        "lucky",
        "ch5",
        title="Right on this machine, and wrong on the next",
        wins=False,
        task="""
            This engine launches batch N + 1 before batch N is done, as chapter 5 does, and does without a carry-over: the
            host puts N's tokens in where they are missing. It is as fast as chapter 5. Here its answers are right.
        """,
        changes=(
            (
                "            self.launch(batch)\n",
                "            if previous:\n"
                "                self.fill(batch, *previous)           # the token ids that N produces\n"
                "            self.launch(batch)\n",
            ),
            ("            self.model.carry_over(self.slot, self.other)      # N's tokens -> N + 1's inputs, all on the GPU\n",
             ""),
            (
                "    def launch(self, batch):\n",
                "    def fill(self, batch, previous, slot, tokens):\n"
                "        ids, source = self.slot.host_inputs.input_ids, self.slot.host_inputs.carry_over\n"
                "        for index in range(batch.num_tokens):\n"
                "            if source[index] >= 0:                    # where it is among N's tokens\n"
                "                ids[index] = tokens[source[index]]\n"
                "\n"
                "    def launch(self, batch):\n",
            ),
        ),
        fix=(
            ("            if previous:\n"
             "                self.fill(batch, *previous)           # the token ids that N produces\n", ""),
            ("    def fill(self, batch, previous, slot, tokens):\n"
             "        ids, source = self.slot.host_inputs.input_ids, self.slot.host_inputs.carry_over\n"
             "        for index in range(batch.num_tokens):\n"
             "            if source[index] >= 0:                    # where it is among N's tokens\n"
             "                ids[index] = tokens[source[index]]\n"
             "\n", ""),
            ("            self.model.forward(self.slot) ",
             "            self.model.carry_over(self.slot, self.other)\n            self.model.forward(self.slot) "),
        ),
        found="The host works with a token that has not arrived: with the placeholder",
        threads=("vllm-project/vllm#52461", "vllm-project/vllm#26467"),
        hints=(
            "When are N's tokens in the host's memory, and what is there until then?",
            "`tokens` is a view of a buffer that a copy is going to fill. Who has waited for that copy when `fill` reads "
            "it?",
            "A wait in front of `fill` makes it right, and takes away what chapter 5 is for: the host would have to see N "
            "before it launches N + 1. Who else knows N's tokens, and earlier?",
            "The GPU: `self.model.carry_over(self.slot, self.other)` before the forward pass, in the stream compute. "
            "Nothing on the host may need a token that early.",
        ),
        others=(
            "If a host must see each token before the next batch, for a penalty or a grammar, it has to wait, and that is "
            "chapter 4. Or what needs the token moves to the GPU.",
        ),
    ),
    hunt(
        "scramble",
        "ch5",
        title="Three batches in flight, every answer wrong",
        wins=False,
        task="""
            Chapter 5 keeps two batches in flight. This engine goes a batch further, so that the GPU never runs out of
            work, and it takes care of its pinned buffers. From the second token on its answers are those of others.
        """,
        changes=(
            ('    """Two batches in flight: the GPU takes', '    """Three batches in flight: the GPU takes'),
            (
                "        self.uploaded, self.computed = cuda.Event(), cuda.Event()\n"
                "        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}\n"
                "        self.in_flight = None                         # the batch on the GPU, its slot, and where its tokens will be\n",
                "        self.computed = cuda.Event()\n"
                "        self.uploaded = {self.slot: cuda.Event(), self.other: cuda.Event()}\n"
                "        self.downloaded = {self.slot: cuda.Event(), self.other: cuda.Event()}\n"
                "        self.in_flight = []                           # batches, their slots, and where their tokens will be\n",
            ),
            (
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n"
                "        previous, self.in_flight = self.in_flight, None\n"
                "        if batch:\n",
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n"
                "        if batch:\n"
                "            self.uploaded[self.slot].synchronize()    # or write would change what is still being copied\n",
            ),
            (
                "        return self.retire(previous)                  # N\n",
                "        if batch and len(self.in_flight) <= 2:        # the GPU has work for two more\n"
                "            return []\n"
                "        return self.retire(*self.in_flight.pop(0))    # the oldest\n",
            ),
            ("        self.uploaded.record(self.h2d)\n        self.compute.wait_event(self.uploaded)        # or",
             "        self.uploaded[self.slot].record(self.h2d)\n"
             "        self.compute.wait_event(self.uploaded[self.slot])     # or"),
            ("        self.in_flight = batch, self.slot, tokens\n",
             "        self.in_flight.append((batch, self.slot, tokens))\n"),
            (
                "    def retire(self, previous):\n"
                "        if not previous:\n"
                "            return []\n"
                "        batch, slot, tokens = previous\n",
                "    def retire(self, batch, slot, tokens):\n",
            ),
        ),
        fix=(("if batch and len(self.in_flight) <= 2:        # the GPU has work for two more",
              "if batch and len(self.in_flight) <= 1:        # the GPU has work for one more"),),
        found="Inputs are overwritten while a batch in flight still reads them",
        threads=("sgl-project/sglang#26380", "sgl-project/sglang#28218", "sgl-project/sglang#28363"),
        hints=(
            "How many batches are in flight when batch 2 is uploaded, and how many slots are there for them?",
            "The host waits until the upload of batch 0 has read its pinned buffer. Who reads what it has copied, and who "
            "waits for that?",
            "Batch 2 goes to the slot of batch 0. What must be over before its upload begins, and before its tokens are "
            "written and copied? Waiting for the upload of batch 0 is not enough.",
            "Two slots hold two batches: the oldest is to be retired as soon as there are two in `self.in_flight`. (A "
            "third slot is the other way.)",
        ),
        others=(
            "A slot for each of the three batches, in turn, with the carry-over from the one before.",
            "That h2d waits for `computed` of the slot is what the pull requests did. Here it saves the inputs, not the "
            "outputs: they are written before the host has read them.",
        ),
    ),
    hunt(
        "scarce",
        "ch5",
        title="Wrong answers, but only when memory is short",
        wins=False,
        task="""
            This engine hands on KV pages earlier than chapter 5: those of a request whose last position has been launched
            are free before its last token is in. With plenty of pages every answer is right. When requests wait for
            pages, some are wrong, whatever the schedule.
        """,
        changes=(
            (
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n",
                "        self.release()                                # before the scheduler looks for free pages\n"
                "        batch = self.scheduler.schedule()             # N + 1, from counts alone: N is still on the GPU\n",
            ),
            (
                "    def launch(self, batch):\n",
                "    def release(self):\n"
                '        """Frees the pages of requests that write to them no more: the last token is never fed back."""\n'
                "        for request in self.scheduler.running:\n"
                "            if request.scheduled + 1 >= request.max_positions:\n"
                "                self.scheduler.pool.free(request.pages)\n"
                "                request.pages = []\n"
                "\n"
                "    def launch(self, batch):\n",
            ),
        ),
        fix=(("request.scheduled + 1 >= request.max_positions", "request.scheduled >= request.max_positions"),),
        found="KV pages are freed while a batch still has to write to them",
        threads=("sgl-project/mini-sglang#89", "vllm-project/vllm#47728"),
        hints=(
            "When is it safe to give a page to another request: when nobody reads it any more, or before?",
            "The new owner's first batch is launched behind all that was launched before, and the stream compute keeps "
            "the order. So pages can go as soon as the last batch that touches them has been launched. Has it?",
            "`request.scheduled` counts the positions that have been handed to batches, and `max_positions` leaves the "
            "last token out already. What is it for a request that has a row in the batch that is scheduled next?",
            "One is left out twice: the pages can go when `request.scheduled` has reached `request.max_positions`.",
        ),
        others=(
            "No early release at all: `update` frees the pages a step later. It costs nothing but memory, and is chapter "
            "5.",
        ),
    ),
    hunt(
        "stutter",
        "ch6",
        title="Tokens come twice",
        wins=False,
        task="""
            Asked `count 3 to 7`, this engine answers `3 4 5 5 6 6 7 7`. It has chapter 6's graphs, nothing races, and it
            is as fast as it should be.
        """,
        changes=(
            ("            for slot, other in ((self.slot, self.other), (self.other, self.slot)):\n",
             "            for slot in (self.slot, self.other):\n"),
            ("                    model.carry_over(slot, other)\n",
             "                    model.carry_over(slot, self.other)\n"),
        ),
        found="Every token twice: the batch starts from a batch too old",
        threads=("tenstorrent/vllm#396",),
        hints=(
            "Where does the row of a decode get the token from that it starts with, and which batch made it?",
            "Batches take turns with the slots, and only every other batch goes wrong. Which one, and what is different "
            "for its slot?",
            "A capture keeps the slots that it was made with. For both graphs of a size, from which slot do the tokens "
            "come? And from which should they?",
            "`model.carry_over(slot, self.other)` is right for the first slot. The second one has to take its tokens from "
            "the first.",
        ),
        others=(
            "The carry-over outside of the graph, launched before each replay: it is one call more in every step.",
        ),
    ),
    hunt(
        "loop",
        "ch6",
        title="Answers go round in circles",
        wins=False,
        task="""
            Asked `count 3 to 7`, this engine answers `3 4 5 6 5 6 5 6` and so on. It looks up a graph only when it needs
            another one than for the batch before. Nothing crashes, and while nobody counts along it even looks well.
        """,
        changes=(
            (
                "        self.graphs, pool = {}, cuda.graph_pool_handle()\n",
                "        self.size, self.graph = None, None            # of the batch before\n"
                "        self.graphs, pool = {}, cuda.graph_pool_handle()\n",
            ),
            (
                "        graph = self.graphs.get((self.slot, batch.decode_size))\n",
                "        if batch.decode_size != self.size:            # another size: another graph\n"
                "            self.size, self.graph = batch.decode_size, self.graphs.get((self.slot, batch.decode_size))\n",
            ),
            ("            if graph:\n                graph.replay()                        # carry-over",
             "            if self.graph:\n                self.graph.replay()                   # carry-over"),
        ),
        fix=(
            ("        if batch.decode_size != self.size:            # another size: another graph\n"
             "            self.size, self.graph = batch.decode_size, self.graphs.get((self.slot, batch.decode_size))\n",
             "        self.graph = self.graphs.get((self.slot, batch.decode_size))\n"),
        ),
        found="A graph is looked up under a stale key, and replays for the wrong batch",
        threads=("huggingface/transformers#45323",),
        hints=(
            "What does a graph read and write when it is replayed, whoever it is meant for?",
            "A graph has two keys. Which of the two can change from one batch to the next while the number of rows stays "
            "the same?",
            "The slots take turns. The graph that is remembered from the batch before is one of the other slot.",
            "Look it up for every batch, by `(self.slot, batch.decode_size)`: that costs next to nothing.",
        ),
        others=(
            "Remember slot and size, and compare both; but then it is looked up every time as well.",
        ),
    ),
)  # fmt: skip
