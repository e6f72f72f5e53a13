"""Which schedules an engine is tried under: by seed, and all there are.

A schedule is the order in which the host's calls and the completions of device work follow one another. A seed stands
for a case and a policy, so that a failure can be run again. How all schedules of a case are gone through is in
explorer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from ..sim.policies import Eager, Lazy, Random, Timed
from .cases import CASES, LONG
from .explorer import ScheduleExplorer, Script
from .judge import Outcome, serve
from .race_detector import RaceDetector

FIXED = (Timed, Lazy, Eager)
LONG_POLICIES = {"timed": Timed, "lazy": Lazy, "eager": Eager}
HARM_SEEDS = 60  # that are tried for a wrong token


def replay(engine_class: type, seed: str, detector: RaceDetector | None = None) -> Outcome:
    """Runs the schedule that a seed stands for.

    Args:
        seed: a number, for a case and a policy; or a case and the choices in it, as `search` names them; or the long
            case and a policy, "long:lazy".
        detector: who looks on; by default one that nobody else knows.

    Raises:
        InputError: there is no such schedule.
    """
    name, _, choices = seed.partition(":")
    if name == LONG.name and choices in LONG_POLICIES:
        return serve(engine_class, LONG, LONG_POLICIES[choices](), detector)
    cases = {case.name: case for case in CASES}
    if seed.isdecimal():
        rounds, index = divmod(int(seed), len(CASES))
        policy = FIXED[rounds]() if rounds < len(FIXED) else Random(int(seed))
        return serve(engine_class, CASES[index], policy, detector)
    digits = choices.split(".") if choices else []
    if name not in cases or not all(digit.isdecimal() for digit in digits):
        raise InputError(f"unknown seed {seed!r}: give a number from 0, or what acb check has printed")
    return serve(engine_class, cases[name], Script([int(digit) for digit in digits]), detector)


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        seed: of the first schedule that went wrong; None if none did.
        outcome: how it went wrong.
        schedules: how many different schedules were run, from start to end, one by one.
        explorers: what was gone through choice by choice; empty if something went wrong before.
        harm: the seed of a schedule in which a token came out wrong, and its outcome: where there was a hazard, and one
            of HARM_SEEDS showed what it can do; else None.
        horizon: batches of the longest case.
    """

    seed: str | None
    outcome: Outcome | None
    schedules: int
    explorers: list[ScheduleExplorer]
    harm: tuple[str, Outcome] | None = None
    horizon: int = 0


def harm(engine_class: type, seed: str, outcome: Outcome) -> tuple[str, Outcome] | None:
    """The first schedule found in which an engine with a hazard gives a wrong token: its seed and its outcome.

    Args:
        seed: of a schedule that has been run.
        outcome: of that schedule.
    """
    if outcome.wrong_batch_number is not None:
        return seed, outcome
    if outcome.failure is not None:
        return None  # it breaks down in any schedule
    long = [f"{LONG.name}:{policy}" for policy in LONG_POLICIES] if seed.startswith(LONG.name) else []
    for number in [*long, *map(str, range(HARM_SEEDS))]:
        if number != seed and (tried := replay(engine_class, number)).wrong_batch_number is not None:
            return number, tried
    return None


def search(
    engine_class: type, schedules: int = 100, runs: int = 2000, progress: Callable[[str], None] = lambda text: None
) -> SearchResult:
    """Runs all cases under all policies, explores each, and then draws schedules at random. Stops where anything goes
    wrong.

    Args:
        schedules: how many different ones are run from start to end, if there are so many.
        runs: that exploring a case may take.
        progress: is told what goes on.

    Raises:
        InputError: the engine cannot be explored, because it does not do the same thing twice.
    """
    seen: set[tuple[int, int]] = set()
    explorers: list[ScheduleExplorer] = []

    def failed(seed: str, outcome: Outcome) -> SearchResult:
        progress("looking for a wrong token")
        return SearchResult(seed, outcome, len(seen), explorers, harm(engine_class, seed, outcome))

    def run(number: int) -> Outcome:
        outcome = replay(engine_class, str(number))
        seen.add((number % len(CASES), outcome.schedule))
        progress(f"{len(seen):,} schedules")
        return outcome

    fixed = len(FIXED) * len(CASES)
    for number in range(fixed):
        if not (outcome := run(number)).clean:
            return failed(str(number), outcome)
    for policy in LONG_POLICIES:
        seed = f"{LONG.name}:{policy}"
        progress(seed)
        if not (outcome := replay(engine_class, seed)).clean:
            return failed(seed, outcome)
        horizon = max(action.batch_number or 0 for action in outcome.detector.actions) + 1
    for case in CASES:
        explorers.append(ScheduleExplorer(engine_class, case))
        progress(f"all schedules of {case.name!r}")
        if found := explorers[-1].follow(runs):
            return failed(*found)
    there_are = sum(explorer.schedules() for explorer in explorers)
    # Where there are few, the last of them may not turn up for long.
    for number in range(fixed, fixed + 2 * schedules):
        if len(seen) >= min(schedules, there_are):
            break
        if not (outcome := run(number)).clean:
            return failed(str(number), outcome)
    return SearchResult(None, None, len(seen), explorers, horizon=horizon)
