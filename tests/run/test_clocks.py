"""The clocks of a host and a GPU, with made-up ones of which all is known."""

import numpy as np
import pytest
import torch

from acb_minimal.run.clocks import Moment, host_times, moment


class Event:
    """CUDA's: says how many milliseconds it has been from one to another, as a float of 32 bits. Nothing promises that
    it can be asked for the time from an event to one that was before it."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def elapsed_time(self, end: "Event") -> float:
        assert end.seconds >= self.seconds
        return float(np.float32(1e3 * (end.seconds - self.seconds)))


def test_the_clocks_are_laid_together_where_they_were_closest(monkeypatch):
    """Of five tries the third takes 0.2 ms and the others several: another process has the GPU."""
    host, tries = [50.0], iter([(0.009, 0.0), (0.004, 0.0), (0.0001, 0.0001), (0.0, 0.006), (0.003, 0.0)])

    class Recorded(Event):
        def record(self) -> None:  # that the GPU comes late to, and the host hears of later
            late, self.rest = next(tries)
            host[0] += late
            self.seconds = 7.0 + host[0]

        def synchronize(self) -> None:
            host[0] += self.rest

    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Recorded())
    found = moment(lambda: host[0])
    assert found.off == pytest.approx(0.0001)
    assert found.seconds == pytest.approx(50.0131)
    assert found.event.seconds - 7.0 == pytest.approx(found.seconds)


@pytest.mark.parametrize("rate", [1.0, 1 - 12e-6, 1 + 3e-6])
def test_a_clock_that_is_slower_or_faster_moves_nothing(rate):
    """Events every 10 ms for half a minute, on a clock of the GPU that started elsewhere."""

    def at(seconds: float) -> Event:
        return Event(7.0 + rate * seconds)

    times = [50.0 + 0.01 * number for number in range(1, 3000)]
    found = host_times(Moment(0.0, 50.0, at(50.0)), Moment(0.0, 80.0, at(80.0)), [at(each) for each in times])
    assert found == pytest.approx(times, abs=2e-6)
    assert np.diff(found) == pytest.approx(np.diff(times), abs=0.3e-6)


def test_an_upload_that_ran_before_what_was_launched_before_it_is_where_it_ran():
    """Forward passes of two seconds, one after the other. The upload for the next is recorded after the end of the one
    that runs, and has a stream to itself."""
    times = []
    for number in range(100):
        start = 50.0 + 2.0 * number
        times += [start, start + 2.0, start + 1.5, start + 1.6]
    began, ended = (Moment(0.0, each, Event(each)) for each in (49.0, 260.0))
    assert host_times(began, ended, [Event(each) for each in times]) == pytest.approx(times, abs=5e-6)
