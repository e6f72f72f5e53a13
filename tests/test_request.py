"""What a batch is, from its rows alone."""

import pytest

from acb_minimal.request import Batch, Request, Row

LONG, SHORT = Request("long", [1] * 5, 4), Request("short", [1], 4)


def test_rows_that_reach_the_end_of_their_prompt_sample():
    batch = Batch([Row(LONG, 0, 4), Row(SHORT, 0, 1), Row(LONG, 4, 1), Row(LONG, 5, 1)])
    assert batch.sampled == [1, 2, 3]
    assert batch.num_tokens == 7
    assert batch.max_query_len == 4
    assert not batch.decodes
    assert batch.decode_size == 0


def test_the_last_token_of_a_prompt_decodes_and_one_from_its_middle_does_not():
    assert Batch([Row(LONG, 5, 1), Row(LONG, 4, 1)]).decodes
    assert not Batch([Row(LONG, 5, 1), Row(LONG, 3, 1)]).decodes


@pytest.mark.parametrize(("rows", "size"), [(1, 2), (2, 2), (3, 4), (5, 5)])
def test_decodes_are_padded_to_the_next_size_if_there_is_one(rows, size):
    batch = Batch([Row(SHORT, 1, 1)] * rows, 7).padded([8, 4, 2][1:])
    assert (batch.decode_size, batch.num_tokens, batch.padding) == (size, size, size - rows)
    assert (batch.number, batch.sampled) == (7, list(range(rows)))


def test_a_batch_with_a_prompt_in_it_is_not_padded():
    batch = Batch([Row(LONG, 0, 5), Row(SHORT, 1, 1)])
    assert batch.padded([4]) is batch


def test_a_batch_knows_whether_first_tokens_come_of_it():
    request = Request("0", [1, 2, 3], 4)
    assert not Batch([Row(request, 0, 2)]).first_tokens  # a piece of the prompt
    assert Batch([Row(request, 2, 1)]).first_tokens
    assert Batch([Row(Request("1", [1], 9), 5, 1), Row(request, 0, 3)]).first_tokens
    assert not Batch([Row(request, 3, 1, 0)]).first_tokens
    request.prefill_len = 5  # it has two tokens, and is computed again: its first one was handed out
    assert not Batch([Row(request, 0, 3)]).first_tokens
    assert not Batch([Row(request, 0, 5)]).first_tokens
