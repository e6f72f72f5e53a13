"""What an experiment on a belief (myths.py, myths_cuda.py) says of it: how many of its cases are against it."""

from collections.abc import Callable, Mapping

from .result_table import ResultTable

SOON = 0.5  # of the time it would take to wait: less than that is not waiting

# Of a case, by the names of its columns: whether it is against the belief. Where a belief is not here, what is against
# it is a wrong outcome.
AGAINST: Mapping[str, Callable[[dict], bool]] = {
    "default_stream": lambda case: (
        case["slow kernel in"] != case["copy in"] and case["copy arrives after, ms"] < SOON * case["slow kernel, ms"]
    ),
    "pageable_copies": lambda case: case["host held for, ms"] > SOON * case["copy done after, ms"],
    "hidden_syncs": lambda case: case["waited"] == "yes" and "synchronize" not in case["call"],
    "launch_queue": lambda case: case["next one held the host for, ms"] is not None,
    "profiler_leaves_traces": lambda case: case["after, us"] > 1.2 * case["before, us"],
}


def verdict(name: str, found: ResultTable) -> str:
    """In a line, what came of a belief.

    Args:
        name: of the experiment.
        found: what it returned.
    """
    against = AGAINST.get(name, lambda case: case["outcome"] == "wrong")
    cases = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    count = sum(map(against, cases))
    if count:
        return f"Verdict: not so. {count} of {len(cases)} cases {'speak' if count > 1 else 'speaks'} against it."
    return f"Verdict: nothing in these {len(cases)} cases speaks against it."
