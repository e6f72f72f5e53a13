"""Engines of many kinds, most of them a chapter with a small change: what the judge says of each, and the words."""

import pytest

from acb_minimal.check import judge
from acb_minimal.check.cases import CASES
from acb_minimal.check.judge import serve
from acb_minimal.check.schedules import replay, search
from acb_minimal.check.tables import problem, verdict
from acb_minimal.errors import InputError
from acb_minimal.run.engines import changed, chapter_path, chapter_paths, engine, load_chapter

STEP = "        batch = self.scheduler.schedule()             # pick requests, assign KV pages\n"


def line_of(chapter: str, part: str) -> int:
    """The number of the only line of a chapter with this in it."""
    (number,) = (n for n, line in enumerate(chapter_path(chapter).read_text().splitlines(), start=1) if part in line)
    return number


def instead(chapter: str, *changes: tuple[str, str]) -> judge.Outcome:
    """What becomes of the chapter with other text in some places."""
    return serve(changed(chapter, *changes), CASES[1])


# --- engines that do not come to an end ---


def test_an_engine_that_hangs_is_told_its_line(monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.5)
    body = "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"
    outcome = instead("ch1", (STEP, f"        {body}\n"))
    line = line_of("ch1", "self.scheduler.schedule()")
    assert outcome.failure == f"the engine has not come to an end in 0.5 s; it is in line {line}: {body}"


STUBBORN = (
    "            yield from self.step()",
    ("            try: yield from self.step()\n            except Exception: pass"),
)


def test_an_engine_that_goes_on_after_an_error_is_stopped_all_the_same():
    early = "tokens = self.slot.download()", "tokens = self.slot.download() + 1"
    outcome = instead("ch1", STUBBORN, early)
    assert outcome.wrong_batch_number == 0
    assert "batch 0 gave request 0 token" in outcome.failure
    outcome = instead("ch1", STUBBORN, ("self.slot.write(batch)", "1 / 0"))
    assert "the engine has looked for work 2,000 times and is not done (line" in outcome.failure


# --- waits that come too early ---

RECORD, WAIT = "        self.uploaded.record(self.h2d)\n", "        self.compute.wait_event(self.uploaded)"


def early(*more: tuple[str, str]) -> str:
    """What is said of chapter 3 with its wait before the record."""
    moved = [(RECORD, ""), (WAIT, f"{WAIT}; self.uploaded.record(self.h2d)")]
    return str(problem(instead("ch3", *moved, *more)))


def test_a_wait_before_the_record_has_found_nothing_or_the_older_one():
    said, line = early(), line_of("ch3", "wait_event(self.uploaded)")
    assert f"line {line}: self.compute.wait_event(self.uploaded); self.uploaded.record(self.h2d)" in said
    assert "finds nothing that was recorded: it has to come after the record" in said
    recorded = (
        "self.downloaded = cuda.Event(), cuda.Event(), cuda.Event()",
        ("self.downloaded = cuda.Event(), cuda.Event(), cuda.Event(); self.uploaded.record(self.h2d)"),
    )
    line = line_of("ch3", "self.uploaded, self.computed, self.downloaded = ")
    assert f"finds an older record, of line {line} before the upload of batch 0: it has to" in early(recorded)


# --- lines of methods that are decorated, inherited, or in another file ---


@pytest.mark.parametrize(
    ("decorator", "use", "body"),
    [("torch.inference_mode()", "self.upload()", ""), ("contextlib.contextmanager", "with self.upload(): 0", "yield ")],
)
def test_a_decorated_method_s_lines_are_its_own(decorator, use, body):
    method = f"    @{decorator}\n    def upload(self):\n        {body}self.slot.upload(non_blocking=True)\n"
    engine_class = changed(
        "ch3",
        ("class Engine:", "import torch, contextlib\nclass Engine:"),
        ("self.compute.wait_event(self.uploaded)", "pass"),
        ("            self.slot.upload(non_blocking=True)", f"            {use}"),
        ("    def step(self):", f"{method}    def step(self):"),
    )
    outcome = serve(engine_class, CASES[1])
    assert "self.slot.upload(non_blocking=True)" in outcome.hazards[0].first.line.text
    assert outcome.hazards[0].first.line.file == outcome.file


def test_an_inherited_method_s_lines_have_the_name_of_their_file(tmp_path):
    base, mine = tmp_path / "base.py", tmp_path / "mine.py"
    base.write_text(chapter_path("ch3").read_text().replace("self.compute.wait_event(self.uploaded)", "pass"))
    mine.write_text(
        "import runpy\n"
        f"Base = runpy.run_path({str(base)!r})['Engine']\n"
        "class Engine(Base):\n"
        "    def run(self):\n"
        "        yield from super().run()\n"
    )
    said = str(problem(serve(judge.load(str(mine)), CASES[1])))
    assert f"  base.py, line {line_of('ch3', 'self.model.forward(')}: self.model.forward(self.slot)" in said


# --- the schedule that shows what a race can do ---

RACES = {
    "ch3": "self.compute.wait_event(self.uploaded)",
    "ch4": "self.slot, self.other = self.other, self.slot",
    "ch5": "self.slot, self.other = self.other, self.slot",
}


@pytest.mark.parametrize("chapter", RACES)
def test_of_a_race_the_schedule_is_named_that_gives_a_wrong_token(chapter):
    racing = changed(chapter, (RACES[chapter], "pass"))
    found = search(racing)
    assert found.outcome.hazards
    seed, outcome = found.harm
    assert outcome.wrong_batch_number is not None
    assert replay(racing, seed).failure == outcome.failure
    lines = [str(part) for part in verdict("mine.py", found).renderables]
    assert lines[-1].endswith(f"See this schedule: acb check mine.py --replay {seed}")
    assert outcome.failure in "\n".join(lines)


# --- engines that use more of torch.cuda ---

STREAMS = "cuda.Stream(), cuda.Stream(), cuda.Stream()"
UPLOAD = (
    "        with self.cuda.stream(self.h2d):\n            self.slot.upload(non_blocking=True)       # host -> device\n"
)

MORE_OF_TORCH = {
    "priorities": (STREAMS, "cuda.Stream(priority=-1), cuda.Stream(device=None, priority=0), cuda.Stream(None)"),
    "blocking events": ("cuda.Event(), cuda.Event(), cuda.Event()", "(cuda.Event(blocking=True) for _ in range(3))"),
    "a stream that is set": (
        UPLOAD,
        "        before = self.cuda.current_stream()\n        self.cuda.set_stream(self.h2d)\n"
        "        self.slot.upload(non_blocking=True); self.cuda.set_stream(before)\n",
    ),
    "a class of streams": (STREAMS, "[type('Mine', (cuda.Stream,), {'n': 1})() for _ in range(3)]"),
    "record_stream": (
        "self.computed.record(", "self.slot.device_tokens.record_stream(self.d2h); self.computed.record("
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE_OF_TORCH)
def test_an_engine_may_use_more_of_torch_cuda(name):
    assert instead("ch3", MORE_OF_TORCH[name]).clean


TWO_STREAMS = """
class Engine:
    def __init__(self, model, scheduler, cuda):
        self.model, self.scheduler, self.cuda, self.slot = model, scheduler, cuda, model.new_slot()
    def run(self):
        {made}
        while self.scheduler.has_work():
            batch = self.scheduler.schedule()
            self.slot.write(batch)
            with self.cuda.stream({up}):
                self.slot.upload(non_blocking=True)
            with self.cuda.stream({main}):
                self.model.forward(self.slot)
                tokens = self.slot.download()
            yield from self.scheduler.update(batch, tokens)
"""
S = "self.cuda.Stream()"
# Where streams can be kept: how they are made, and their names by that.
KEPT = {
    "attributes": (f"self.up, self.main = {S}, {S}", "self.up", "self.main"),
    "a list": (f"self.both = [{S}, {S}]", "self.both[0]", "self.both[1]"),
    "a dictionary": (f"self.both = {{'up': {S}, 'main': {S}}}", "self.both['up']", "self.both['main']"),
    "an object": (f"self.lane = type('Lane', (), {{}})(); self.lane.up, self.main = {S}, {S}",
                  "self.lane.up", "self.main"),
    "variables": (f"up, main = {S}, {S}", "up", "main"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_streams_have_names_wherever_they_are_kept(name):
    made, up, main = KEPT[name]
    outcome = serve(engine(TWO_STREAMS.format(made=made, up=up, main=main), "mine"), CASES[1])
    waits, awaited = (each.removeprefix("self.") for each in (main, up))
    assert str(outcome.hazards[0]).endswith(f"nothing makes {waits} wait for {awaited}")


def test_what_torch_has_not_either_is_the_engine_s_mistake():
    outcome = instead("ch3", ("self.compute.wait_event(self.uploaded)", "self.compute.wait_for(self.uploaded)"))
    assert outcome.failure.startswith("AttributeError: torch.cuda.Stream has no attribute 'wait_for' (line ")


LAST_WAIT = "self.downloaded.synchronize()"


def test_what_the_engine_s_own_code_reads_is_not_called_a_part_s():
    """It looks at tokens that have not arrived, and waits only then."""
    outcome = instead("ch3", (LAST_WAIT, f"first = tokens[0]; {LAST_WAIT}"))
    (hazard,) = outcome.hazards
    assert str(hazard).startswith("the host (its own code) reads slot A's pinned outputs; the download of batch 0 ")
    assert hazard.second.line.text.startswith("first = tokens[0]; ")


def test_a_poller_that_goes_on_after_a_few_noes_is_found():
    found = search(changed("ch3", (LAST_WAIT, "for _ in range(7): self.downloaded.query()")), 0.01)
    assert "nothing makes the host wait for d2h" in str(found.outcome.hazards[0])


def test_a_wait_that_was_for_an_earlier_batch_is_not_said_to_come_too_early():
    """From batch 5 on it does not wait: the wait for batch 3's tokens was in its place."""
    wait = "        self.downloaded[slot].synchronize()  "
    outcome = instead("ch5", (wait, wait.replace("self.down", "batch.number < 5 and self.down")))
    assert "the download of batch 5 writes them" in str(outcome.hazards[0])
    assert outcome.early is None


def test_an_error_in_device_work_comes_with_the_line_that_launched_it():
    """It replays the graph of the batch before, which may be of other rows."""
    look_up = "        graph = self.graphs.get((self.slot, batch.decode_size))\n"
    sizes = "        before, self.size = getattr(self, 'size', 1), batch.decode_size\n"
    stale = sizes + look_up.replace("batch.decode_size)", "batch.decode_size and before)")
    outcome = replay(changed("ch6", (look_up, stale)), "0")
    assert outcome.failure.startswith("IndexError: index ")
    assert ", in the graph replay of batch " in outcome.failure
    line = line_of("ch6", "graph.replay()") + 1
    assert f"(launched in line {line}: graph.replay()); a GPU checks no such thing" in outcome.failure


@pytest.mark.parametrize(
    ("text", "name"), [("cuda.memory_stats()", "memory_stats"), ("self.h2d.cuda_stream", "Stream.cuda_stream")]
)
def test_what_the_simulator_does_not_know_is_its_own_limit(text, name):
    events = "        self.uploaded, "
    with pytest.raises(InputError) as refused:
        instead("ch3", (events, f"        {text}; self.uploaded, "))
    assert f"the simulator has no torch.cuda.{name}; that is a limit of the simulator (line " in str(refused.value)
    assert str(refused.value).startswith("the engine cannot be checked: the simulator")


# --- engines that forget only now and then ---


@pytest.mark.parametrize("every", [16, pytest.param(50, marks=pytest.mark.slow)])
def test_a_wait_that_is_skipped_now_and_then_is_missed(every):
    wait = "self.compute.wait_event(self.uploaded)"
    found = search(changed("ch3", (wait, f"batch.number % {every} == {every - 1} or {wait}")))
    assert found.seed.startswith("long:")
    assert found.outcome.hazards[0].second.batch_number == every - 1
    assert str(every - 1) in found.harm[1].failure
    assert replay(load_chapter("ch3"), found.seed).clean


@pytest.mark.parametrize("policy", [
    pytest.param("lazy", marks=pytest.mark.slow),
    *(pytest.param(policy, marks=pytest.mark.exhaustive) for policy in ("timed", "eager")),
])  # fmt: skip
@pytest.mark.parametrize("chapter", chapter_paths())
def test_the_chapters_are_in_order_for_long(chapter, policy):
    assert replay(load_chapter(chapter), f"long:{policy}").clean
