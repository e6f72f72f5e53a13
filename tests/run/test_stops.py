"""Answers that end before a text: in every chapter, and in a stream, which keeps back what may begin one."""

import pytest

from acb_minimal.errors import InputError
from acb_minimal.run.session import Session
from acb_minimal.run.stops import StopTexts
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
    stops = StopTexts(["cd", "zzz"], lambda tokens: "".join(said[token] for token in tokens))
    assert not stops.found([1, 2])
    assert stops.found([1] * 50 + [2, 3, 4])
    assert stops.cut("abcda") == "ab"
    assert stops.cut("abc") == "abc"


def test_a_stream_keeps_back_what_may_begin_a_stop_text():
    session = Session(Job(["count 3 to 9"], stop=[" 5 6", " 4 7"]), "ch5", "counter", "sim", stream=True)
    *tokens, done = session.run()
    assert [token.text for token in tokens] == ["3", "", " 4", ""]
    assert done.text == "3 4"
    stops = StopTexts(["abc"], str)
    assert [stops.passed("0", text) for text in ("xa", "b", "a", "bcd")] == ["x", "", "ab", ""]
    assert [stops.passed("1", text) for text in ("ab", "d", None)] == ["", "abd", None]


@pytest.mark.parametrize("chapter", ["ch5", "ch10"])
@pytest.mark.parametrize("stop", [" 9 10", " 8 10", " 8 9"])
def test_what_a_stream_hands_out_is_what_its_completion_has(chapter, stop):
    """Also if an answer ends while text is kept back."""
    *tokens, done = Session(Job(["count 3 to 9"], stop=stop), chapter, "counter", "sim", stream=True).run()
    assert "".join(token.text for token in tokens) == done.text


def test_a_stop_text_has_a_character():
    with pytest.raises(InputError, match="the stop text is ''; it must have at least one"):
        Session(Job(["count 3 to 9"], stop=[""]), "ch5", "counter", "sim")
