"""Tokens as they come, requests that are cancelled, readers that are slow: nothing is lost and nothing leaks. And texts
that end an answer: in every chapter, and in a stream, which keeps back what may begin one."""

import random
from collections import Counter

import pytest

from acb_minimal import generate
from acb_minimal.errors import InputError
from acb_minimal.models import counter
from acb_minimal.request import Request
from acb_minimal.run.arrivals import Arrivals
from acb_minimal.run.session import Session
from acb_minimal.run.streams import Completion, Texts, Token
from acb_minimal.run.workload import Job

PAIRS = [(3, 9), (10, 14), (997, 999)]
PROMPTS = [counter.prompt(*pair) for pair in PAIRS]


def read(items: list, id: str) -> tuple[list[int], str]:
    """The tokens of a request and their text, from what a stream has yielded."""
    tokens = [item for item in items if isinstance(item, Token) and item.id == id]
    return [item.token for item in tokens], "".join(item.text for item in tokens)


@pytest.mark.parametrize("chapter", ["ch1", "ch4", "ch5", "ch7", "ch8", "ch10", "ch11"])
def test_tokens_come_before_their_completion_and_make_it_up(chapter):
    items = list(generate(PROMPTS, chapter, device="sim", max_running=2, stream=True))
    done = {item.id: item for item in items if isinstance(item, Completion)}
    for number, pair in enumerate(PAIRS):
        assert read(items, str(number)) == (done[str(number)].tokens, counter.answer(*pair))
        assert [item for item in items if item.id == str(number)][-1] is done[str(number)]


def test_a_cancelled_request_is_next_with_what_it_had_and_others_go_on():
    session, items = generate(PROMPTS[:2], "ch5", device="sim", stream=True), []
    for item in session:
        items.append(item)
        if item == Token("0", 5, " 5"):
            assert session.cancel("0")
            assert not session.cancel("0")  # once
    assert items[items.index(Token("0", 5, " 5")) + 1] == Completion("0", [3, 4, 5], "3 4 5", "abort")
    assert read(items, "0") == ([3, 4, 5], "3 4 5")
    assert read(items, "1")[1] == counter.answer(*PAIRS[1])
    assert not session.cancel("1")
    with pytest.raises(InputError, match="cannot cancel request '7': no request has that id"):
        session.cancel("7")


def test_who_is_cancelled_by_a_neighbours_token_of_the_same_batch_gets_no_more():
    session = generate(PROMPTS[:2], "ch5", device="sim", stream=True)
    stream = iter(session)
    assert next(stream).id == "0"
    assert session.cancel("1")
    assert [item for item in stream if item.id == "1"] == [Completion("1", [10], "10", "abort")]


@pytest.mark.parametrize("chapter", ["ch1", "ch4", "ch5"])
def test_pages_of_who_is_cancelled_are_free_at_once_and_once(chapter):
    """There are pages for one request: the next one runs in them while the batch in flight writes to them."""
    job = Job(PROMPTS, max_new_tokens=12, max_running=2, page_size=4, pages=4)
    session, texts = Session(job, chapter, device="sim", stream=True), []
    for item in session:
        if isinstance(item, Completion):
            texts.append(item.text)
        elif item.token in (4, 11):
            assert session.cancel(item.id)
            assert session.pool.num_free == 4
    assert texts == ["3 4", "10 11", "997 998 999"]
    assert session.pool.num_free == session.pool.num_pages


def test_one_that_waits_one_that_has_not_come_and_all_before_the_run():
    job = Job(PROMPTS, max_running=1, arrivals=Arrivals(times=(0.0, 0.0, 9.0)))
    session = Session(job, "ch5", device="sim", stream=True)
    stream = iter(session)
    next(stream)
    assert session.cancel("1")
    assert session.cancel("2")
    done = [item for item in stream if isinstance(item, Completion)]
    assert [(item.id, item.tokens == []) for item in done] == [("1", True), ("2", True), ("0", False)]
    assert session.device.clock() < 9.0  # nobody waits for it

    session = Session(Job(PROMPTS), "ch5", device="sim")
    assert [session.cancel(id) for id in "012"] == [True] * 3
    assert [completion.finish_reason for completion in session.run()] == ["abort"] * 3


def test_an_unfinished_character_comes_with_the_token_that_completes_it():
    parts = {1: b"a", 2: "é".encode()[:1], 3: "é".encode()[1:], 4: b""}

    def decode(ids):
        return b"".join(parts[id] for id in ids).decode(errors="replace")

    request, texts = Request("0", [1], 9), Texts(decode)
    request.tokens += [1, 2, 3, 4, 1]
    assert [texts.added(request, place) for place in range(1, 6)] == ["a", "", "é", "", "a"]
    assert Texts(lambda ids: None).added(request, 1) is None


@pytest.mark.parametrize("chapter", ["ch1", "ch5", "ch8"])
def test_an_answer_ends_before_a_stop_text(chapter):
    session = Session(Job(["count 3 to 9", "count 40 to 43"], stop=[" 6", "3 44"]), chapter, "counter", "sim")
    one, other = session.serve()
    assert (one.text, one.tokens, one.finish_reason) == ("3 4 5", [3, 4, 5, 6], "stop")
    assert (other.text, other.finish_reason) == ("40 41 42 43", "stop")
    assert session.pool.num_free == session.pool.num_pages


def test_a_stop_text_may_lie_in_several_tokens():
    said = {1: "a", 2: "bc", 3: "", 4: "d"}
    texts = Texts(lambda tokens: "".join(said[token] for token in tokens), ["cd", "zzz"])
    assert not texts.stop([1, 2])
    assert texts.stop([1] * 50 + [2, 3, 4])
    assert texts.cut("abcda") == "ab"
    assert texts.cut("abc") == "abc"


def test_a_stream_keeps_back_what_may_begin_a_stop_text():
    session = Session(Job(["count 3 to 9"], stop=[" 5 6", " 4 7"]), "ch5", "counter", "sim", stream=True)
    *tokens, done = session.run()
    assert [token.text for token in tokens] == ["3", "", " 4", ""]
    assert done.text == "3 4"
    request, texts = Request("0", [1], 9), Texts(lambda tokens: "".join(map(chr, tokens)), ["abc"])
    request.tokens += map(ord, "xababcd")
    assert [texts.added(request, place) for place in range(1, 7)] == ["x", "", "", "ab", "", ""]


@pytest.mark.parametrize("chapter", ["ch5", "ch10"])
@pytest.mark.parametrize("stop", [" 9 10", " 8 10", " 8 9"])
def test_what_a_stream_hands_out_is_what_its_completion_has(chapter, stop):
    """Also if an answer ends while text is kept back."""
    *tokens, done = generate("count 3 to 9", chapter, device="sim", stop=stop, stream=True)
    assert "".join(token.text for token in tokens) == done.text


def soak(chapter: str, seed: int, requests: int, **limits) -> Counter:
    """Serves requests to a reader who cancels now and then, and is slow now and then; what became of them, counted."""
    rng = random.Random(seed)
    starts = [rng.randint(0, 900) for _ in range(requests)]
    pairs = [(start, start + rng.choice([0, 1, 3, 8, 20])) for start in starts]
    prompts = [counter.prompt(*pair) if rng.random() < 0.98 else "count bananas" for pair in pairs]
    rate = rng.choice([50.0, 400.0, 1e4])
    arrivals = rng.choice([Arrivals(rate=rate, seed=seed), Arrivals(concurrency=rng.randint(1, 40))])
    job = Job(prompts, 30, arrivals=arrivals, page_size=4, max_batch_tokens=24, max_running=8, **limits)
    session = Session(job, chapter, device="sim", stream=True)
    found, tokens = {}, {str(number): [] for number in range(requests)}
    for item in session:
        if isinstance(item, Completion):
            assert item.id not in found
            found[item.id] = item
        else:
            assert item.id not in found
            tokens[item.id].append(item.token)
        if rng.random() < 0.02:
            session.cancel(rng.choice(session.requests).id)
        if rng.random() < 0.01:
            session.device.work(rng.choice([1e-3, 0.1]))
    assert found.keys() == tokens.keys()
    for id, item in found.items():
        late = len(item.tokens) - len(tokens[id])  # those that had come with one on which its reader cancelled
        assert item.tokens[: len(tokens[id])] == tokens[id]
        assert 0 <= late <= (1 + limits.get("speculate", 0)) * (item.finish_reason == "abort")
        right = counter.answer(*pairs[int(id)])
        assert item.error or (item.text == right if item.finish_reason == "stop" else right.startswith(item.text))
        if not item.error:
            assert len(session.scheduler.lives[id].tokens) == len(item.tokens)
    scheduler = session.scheduler
    assert session.pool.num_free == session.pool.num_pages
    assert [*scheduler.running, *scheduler.waiting, *scheduler.coming, *scheduler._ids] == []
    if limits.get("preempt") == "swap":
        assert scheduler.berths.num_free == scheduler.berths.num_pages
    return Counter("refused" if item.error else item.finish_reason for item in found.values())


@pytest.mark.parametrize("chapter", ["ch1", "ch5"])
def test_a_short_soak(chapter):
    counted = soak(chapter, 0, 60)
    assert counted.keys() == {"stop", "abort", "refused"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("chapter", "limits"), [
    *((chapter, {"pages": 24}) for chapter in ("ch1", "ch4", "ch5", "ch11")),
    *((chapter, {"pages": 14, "preempt": "recompute"}) for chapter in ("ch1", "ch4", "ch5", "ch11")),
    *((chapter, {"pages": 30, "speculate": 2}) for chapter in ("ch1", "ch5", "ch10")),
    ("ch9", {"pages": 14, "preempt": "swap", "berths": 3}),
])  # fmt: skip
def test_a_soak(chapter, limits, seed):
    counted = soak(chapter, seed, 400, **limits)
    assert counted["abort"] > 10
    assert counted["stop"] > 200
