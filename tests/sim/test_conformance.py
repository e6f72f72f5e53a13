"""The simulated GPU and the real one run the same small programs, and the same must hold for both.

There are two kinds of programs. In one kind streams, events and waits fix the answer, on every machine. In the other
nothing orders a slow piece of work and whoever looks at its result: a race. A GPU may answer a race either way, so
there the slow work is slow enough to come last; on the simulator the policy decides.
"""

from contextlib import suppress

import pytest
from sim.machine import Machine

# --- what is ordered ---


def test_a_stream_runs_its_operations_in_order(machine):
    data, source, seen = machine.data, machine.pinned([3]), machine.seen
    for stream in [*machine.streams(1), machine.cuda.default_stream()]:
        with machine.cuda.stream(stream):
            machine.slow()
            machine.copy("h2d", data, source)
            machine.compute(lambda: data.add_(1))
            machine.compute(lambda: data.mul_(2))
            machine.copy("d2h", seen, data)
            machine.compute(lambda: data.fill_(0))
        stream.synchronize()
        assert (seen.tolist(), data.tolist()) == ([8], [0])


def by_record_and_wait_event(cuda, first, then):
    event = cuda.Event()
    event.record(first)
    then.wait_event(event)


def by_the_current_stream(cuda, first, then):
    event = cuda.Event()
    with cuda.stream(first):
        event.record()
    with cuda.stream(then):
        event.wait()


def by_record_event_of_an_event(cuda, first, then):
    event = cuda.Event()
    assert first.record_event(event) is event
    then.wait_event(event)


ORDERS = {
    "record, wait_event": by_record_and_wait_event,
    "in the current stream": by_the_current_stream,
    "record_event of an event": by_record_event_of_an_event,
    "record_event": lambda cuda, first, then: then.wait_event(first.record_event()),
    "wait": lambda cuda, first, then: first.record_event().wait(then),
    "wait_stream": lambda cuda, first, then: then.wait_stream(first),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_record_and_a_wait_order_two_streams(machine, order):
    writer, reader = machine.streams(2)
    machine.write(writer)
    ORDERS[order](machine.cuda, writer, reader)
    assert machine.read(reader) == [1]


def test_order_carries_over_from_wait_to_wait(machine):
    """A batch goes through three streams; the download waits for the upload without naming it."""
    source, (data, result) = machine.pinned([3]), machine.device_tensor([[0], [0]])
    h2d, compute, d2h = machine.streams(3)
    with machine.cuda.stream(h2d):
        machine.slow()
        machine.copy("h2d", data, source)
    compute.wait_stream(h2d)
    with machine.cuda.stream(compute):
        machine.compute(lambda: result.copy_(data))
        machine.compute(lambda: result.mul_(2))
    d2h.wait_stream(compute)
    with machine.cuda.stream(d2h):
        machine.copy("d2h", machine.seen, result)
    d2h.synchronize()
    assert machine.seen.tolist() == [6]


def test_an_event_recorded_again_elsewhere_still_holds_who_waited_before(machine):
    writer, reader, idle = machine.streams(3)
    event = machine.cuda.Event()
    machine.write(writer)
    event.record(writer)
    reader.wait_event(event)
    event.record(idle)  # would release the reader at once if it waited for the event and not for the record
    assert machine.read(reader) == [1]


@pytest.mark.parametrize("what", ["an event, for its latest record", "a stream, for all that is in it"])
def test_synchronizing_waits_for(machine, what):
    (stream,) = machine.streams(1)
    event = stream.record_event()
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
        event.record()
    (event if "event" in what else stream).synchronize()
    assert machine.seen.tolist() == [1]


def test_nothing_waits_for_an_event_never_recorded(machine):
    (stream,) = machine.streams(1)
    event = machine.cuda.Event()
    assert event.query()
    event.synchronize()
    stream.wait_event(event)
    event.wait(stream)
    assert machine.read(stream) == [0]
    assert event.query()


@pytest.mark.parametrize("how", ["blocking", "pageable", "synchronized"])
def test_the_source_of_an_upload_may_be_overwritten_once_the_host_knows(machine, how):
    """The driver copies pageable memory to a buffer of its own before the call returns."""
    source = machine.pageable([1]) if how == "pageable" else machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", machine.data, source, non_blocking=how != "blocking")
    if how == "synchronized":
        stream.synchronize()
    source.fill_(2)
    stream.synchronize()
    assert machine.data.tolist() == [1]


@pytest.mark.parametrize("how", ["blocking", "pageable"])
def test_a_download_is_there_once_the_host_knows(machine, how):
    """Of a non-blocking one to pageable memory nothing is promised before: CUDA says it *might* make the host wait."""
    seen = machine.pageable([0]) if how == "pageable" else machine.seen
    (stream,) = machine.streams(1)
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", seen, machine.data, non_blocking=how != "blocking")
    if how == "pageable":
        stream.synchronize()
    assert seen.tolist() == [1]


def test_the_current_stream_nests_and_is_restored(machine):
    cuda = machine.cuda
    outer, inner = machine.streams(2)
    assert cuda.current_stream() == cuda.default_stream()
    with cuda.stream(outer):
        assert cuda.current_stream() == outer
        with cuda.stream(inner):
            assert cuda.current_stream() == inner
            with cuda.stream(outer):
                assert cuda.current_stream() == outer
            assert cuda.current_stream() == inner
        with suppress(KeyError), cuda.stream(inner):
            raise KeyError
        assert cuda.current_stream() == outer
    assert cuda.current_stream() == cuda.default_stream()
    assert len({outer, inner, cuda.default_stream()}) == 3


def test_streams_and_events_are_of_classes_that_can_be_subclassed(machine):
    class Counting(machine.cuda.Event):
        records = 0

        def record(self, stream=None):
            self.records += 1
            super().record(stream)

    writer, reader = machine.streams(2)
    event = Counting()
    machine.write(writer)
    event.record(writer)
    reader.wait_event(event)
    assert machine.read(reader) == [1]
    assert (event.records, event.query()) == (1, True)
    assert isinstance(writer, machine.cuda.Stream)
    assert isinstance(writer.record_event(), machine.cuda.Event)
    assert not isinstance(writer, machine.cuda.Event)


# --- races: what is not ordered ---

RACES = []


def race(slow_last, slow_first):
    """Declares a race: what it answers if the slow work comes last, and what if it comes first, as it was queued."""

    def declare(program):
        RACES.append(pytest.param(program, slow_last, slow_first, id=program.__name__))
        return program

    return declare


@race(slow_last=[0], slow_first=[1])
def a_reader_in_another_stream(machine):
    writer, reader = machine.streams(2)
    machine.write(writer)
    return machine.read(reader)


@race(slow_last=[0], slow_first=[1])
def a_wait_for_an_event_not_recorded_yet(machine):
    writer, reader = machine.streams(2)
    event = machine.cuda.Event()
    reader.wait_event(event)
    machine.write(writer)
    event.record(writer)
    return machine.read(reader)


@race(slow_last=False, slow_first=True)
def work_queued_before_a_wait(machine):
    """The wait holds up what comes after it only: the host gets past `before` while `slow` is not done."""
    writer, reader = machine.streams(2)
    machine.write(writer)
    slow = writer.record_event()
    before = reader.record_event()
    reader.wait_event(slow)
    before.synchronize()
    return slow.query()


@race(slow_last=[-1], slow_first=[1])
def a_download_the_host_does_not_wait_for(machine):
    (stream,) = machine.streams(1)
    machine.write(stream)
    with machine.cuda.stream(stream):
        machine.copy("d2h", machine.seen, machine.data)
    return machine.seen.tolist()


@race(slow_last=[2], slow_first=[1])
def a_source_overwritten_after_a_non_blocking_upload(machine):
    """The copy reads its source when it runs, not when it is called."""
    source = machine.pinned([1])
    (stream,) = machine.streams(1)
    with machine.cuda.stream(stream):
        machine.slow()
        machine.copy("h2d", machine.data, source)
    source.fill_(2)
    stream.synchronize()
    return machine.data.tolist()


@race(slow_last=False, slow_first=True)
def a_query_of_an_event_behind_slow_work(machine):
    (stream,) = machine.streams(1)
    machine.write(stream)
    return stream.record_event().query()


@pytest.mark.parametrize(("program", "slow_last", "slow_first"), RACES)
def test_a_race_comes_out_as_the_machine_decides(machine, program, slow_last, slow_first):
    possible = {"eager": [slow_first], "random": [slow_last, slow_first]}.get(machine.policy, [slow_last])
    assert program(machine) in possible


@pytest.mark.parametrize(("program", "slow_last", "slow_first"), RACES)
def test_seeds_find_both_ends_of_a_race(program, slow_last, slow_first):
    answers = [program(Machine(f"random-{seed}")) for seed in range(50)]
    assert slow_last in answers
    assert slow_first in answers
