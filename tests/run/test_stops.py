"""Answers that end before a text: in every chapter, and in a stream, which keeps back what may begin one."""

import pytest

from acb_minimal.request import Request
from acb_minimal.run.session import Session
from acb_minimal.run.streams import Texts
from acb_minimal.run.workload import Job

SLOWLY = [pytest.param(chapter, marks=pytest.mark.slow) for chapter in ("ch1", "ch4", "ch6", "ch7")]


@pytest.mark.parametrize("chapter", ["ch5", "ch8", *SLOWLY])
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
    *tokens, done = Session(Job(["count 3 to 9"], stop=stop), chapter, "counter", "sim", stream=True).run()
    assert "".join(token.text for token in tokens) == done.text
