"""Profiles: the breakdown of a step."""

import pytest

from acb_minimal.errors import InputError
from acb_minimal.measure.profile import SAMPLE, launch_names, profile
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import chapter_paths
from acb_minimal.run.workload import workload as find_workload
from acb_minimal.sim.device import CpuDevice
from acb_minimal.trace.torch_profiler import Recording, kernel_runs


@pytest.mark.parametrize("chapter", chapter_paths())
@pytest.mark.parametrize("name", ["demo", "long"])
def test_a_breakdown_adds_up_to_the_step(chapter, name):
    workload = find_workload(name).override(new_tokens=64, requests=20)
    done = profile(chapter, workload, "sim")
    parts = done.breakdown
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step, rel=0.02)
    assert parts.kernels > 0
    assert parts.launch_gaps > -1e-12
    assert len(done.completions) == workload.requests
    assert (done.kernel_trace, done.profiled_bubbles, parts.kernel_count) == (None, None, None)


def test_launches_are_what_fills_the_gaps():
    """The simulator prices them: what a batch waits for inside is what launching takes longer than its kernels."""
    workload = find_workload("long").override(new_tokens=32)
    eager, graphs = (profile(chapter, workload, "sim").breakdown for chapter in ("ch5", "ch6"))
    assert 10 * graphs.launch_gaps < eager.launch_gaps
    assert eager.launch_gaps > 5e-3
    assert graphs.kernels == pytest.approx(eager.kernels, rel=0.01)


def test_what_cannot_be_profiled():
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", find_workload("demo"), "cpu")
    with pytest.raises(InputError, match="there is no profile of device 'cpu'"):
        profile("ch1", find_workload("demo"), CpuDevice())
    with pytest.raises(InputError, match="request '0': max_new_tokens is 0"):
        profile("ch1", find_workload("demo").override(new_tokens=0), "sim")


def test_without_decodes_there_is_no_breakdown():
    assert profile("ch1", find_workload("demo").override(requests=2, new_tokens=1), "sim").breakdown is None


@pytest.mark.gpu
@pytest.mark.parametrize("chapter", chapter_paths())
def test_a_profile_on_the_gpu(chapter):
    done = profile(chapter, find_workload("demo"), "cuda", Checkpoint("counter"))
    parts = done.breakdown
    assert parts.kernels + parts.launch_gaps + parts.bubbles == pytest.approx(parts.step, rel=0.02)
    assert parts.kernel_count > 100
    runs = kernel_runs(Recording.of(done.kernel_trace["traceEvents"]), launch_names(range(1000)))
    assert len(runs) == SAMPLE
    assert 0 <= done.profiled_bubbles < 1
