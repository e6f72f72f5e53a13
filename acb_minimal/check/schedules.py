"""Which schedules an engine is tried under: by seed, and as many as there is time for.

A schedule is the order in which the host's calls and the completions of device work follow one another. A seed stands
for a case and a policy, so that a failure can be run again. How all schedules of a case are gone through is in
explorer.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from ..run.engines import copies_pages, hands_out, keeps_state, samples, verifies
from ..sim.policies import Eager, Lazy, Random, Timed
from .cases import CASES, GRAMMAR_CASES, LONG, READER_CASES, SAMPLING_CASES, SPECULATION_CASES, SWAP_CASES, WIDE, Case
from .explorer import Explored, ScheduleExplorer, Script
from .judge import Outcome, serve
from .pace import serve_timed
from .race_detector import RaceDetector

FIXED = {"timed": Timed, "lazy": Lazy, "eager": Eager}
LARGE = {f"{case.name}:{name}": (case, policy) for case in (WIDE, LONG) for name, policy in FIXED.items()}
HARM_SEEDS = 60  # that are tried for a wrong token
AT_RANDOM = 60  # schedules that are drawn
SECONDS = 15.0  # for a search
SLICE = 8  # runs of a case, before it is the next one's turn


def cases_of(engine_class: type) -> tuple[Case, ...]:
    """Those that an engine is tried with: with grammars if it samples by itself, with draws if it keeps their state,
    with too few pages if it copies them, with readers who leave if it asks whether tokens are there, with drafts if it
    verifies them."""
    kinds = {verifies: SPECULATION_CASES, copies_pages: SWAP_CASES, hands_out: (*READER_CASES, *CASES),
             samples: GRAMMAR_CASES, keeps_state: SAMPLING_CASES}  # fmt: skip
    return next((cases for does, cases in kinds.items() if does(engine_class)), CASES)


def replay(engine_class: type, seed: str, detector: RaceDetector | None = None) -> Outcome:
    """Runs the schedule that a seed stands for.

    Args:
        seed: a number, for a case and a policy; or a case and the choices in it, as `search` names them; or the long
            or the wide case and a policy, "long:lazy"; "wide:timed" is what engines are timed by.

    Raises:
        InputError: there is no such schedule.
    """
    detector, (name, _, choices) = detector or RaceDetector(), seed.partition(":")
    if seed == f"{WIDE.name}:timed":
        return serve_timed(engine_class, detector)[0]
    if seed in LARGE:
        case, policy = LARGE[seed]
        return serve(engine_class, case, policy(), detector)
    if seed.isdecimal():
        own = cases_of(engine_class)
        rounds, index = divmod(int(seed), len(own))
        policy = list(FIXED.values())[rounds]() if rounds < len(FIXED) else Random(int(seed))
        return serve(engine_class, own[index], policy, detector)
    every = *CASES, *GRAMMAR_CASES, *SAMPLING_CASES, *SPECULATION_CASES, *SWAP_CASES, *READER_CASES
    cases = {case.name: case for case in every}
    digits = choices.split(".") if choices else []
    if name not in cases or not all(digit.isdecimal() for digit in digits):
        raise InputError(f"unknown seed {seed!r}: give a number from 0, or what acb check has printed")
    return serve(engine_class, cases[name], Script([int(digit) for digit in digits]), detector)


@dataclass(frozen=True)
class SearchResult:
    """What a search has found. What an engine does only in larger batches, or later, is not seen."""

    seed: str | None  # of the first schedule that went wrong
    outcome: Outcome | None  # how it went wrong
    schedules: int  # how many different ones were run, from start to end, one by one
    explored: list[Explored]  # how far each case was gone through choice by choice; empty if it went wrong before
    harm: tuple[str, Outcome] | None = None  # what a hazard can do: the seed of a schedule with a wrong token
    rows: int = 0  # of the batches that were run, at most
    tokens: int = 0  # likewise
    batches: int = 0  # of a run, at most


def harm(engine_class: type, seed: str, outcome: Outcome) -> tuple[str, Outcome] | None:
    """The first schedule found in which an engine with a hazard gives a wrong token: its seed and its outcome. Given
    are those of a schedule that has been run."""
    if outcome.wrong_batch_number is not None:
        return seed, outcome
    if outcome.failure is not None:
        return None  # it breaks down in any schedule
    large = [each for each in LARGE if each.partition(":")[0] == seed.partition(":")[0]]
    for number in [*large, *map(str, range(HARM_SEEDS))]:
        if number != seed and (tried := replay(engine_class, number)).wrong_batch_number is not None:
            return number, tried
    return None


def search(
    engine_class: type, seconds: float = SECONDS, progress: Callable[[str], None] = lambda text: None
) -> SearchResult:
    """Runs all cases under all policies, the long and the wide one too, draws schedules at random, and explores what
    there is to explore while there is time, about; a little of everything is run in any case. Stops where anything goes
    wrong. `progress` is told what goes on.

    Raises:
        InputError: the engine cannot be explored, because it does not do the same thing twice.
    """
    until = time.monotonic() + seconds
    seen: set[tuple[str, int]] = set()
    largest = 0, 0, 0  # rows and tokens of a batch, batches of a run
    cases = cases_of(engine_class)
    explorers = [ScheduleExplorer(engine_class, case) for case in cases]

    def found(seed: str | None = None, outcome: Outcome | None = None) -> SearchResult:
        explored, shown = [explorer.explored() for explorer in explorers if explorer.runs], None
        if outcome is not None:
            progress("looking for a wrong token")
            shown = harm(engine_class, seed, outcome)
        return SearchResult(seed, outcome, len(seen), explored, shown, *largest)

    fixed = len(FIXED) * len(cases)
    new = fixed
    for seed in [*map(str, range(fixed)), *LARGE, *map(str, range(fixed, fixed + AT_RANDOM))]:
        if seed.isdecimal() and int(seed) >= fixed and (time.monotonic() > until or int(seed) - new > len(cases)):
            break  # where there are few, the last of them may not turn up for long
        progress(f"schedule {seed}")
        outcome = replay(engine_class, seed)
        sizes = *((step.rows, step.tokens, len(outcome.steps)) for step in outcome.steps), largest
        largest = tuple(map(max, zip(*sizes, strict=True)))
        if not outcome.clean:
            return found(seed, outcome)
        case = cases[int(seed) % len(cases)].name if seed.isdecimal() else seed.partition(":")[0]
        if seed.isdecimal() and (case, outcome.schedule) not in seen:
            new = int(seed)
        seen.add((case, outcome.schedule))
    while not all(explorer.complete for explorer in explorers):
        for explorer in explorers:
            progress(f"schedules of {explorer.case.name!r}")
            if wrong := explorer.follow(explorer.runs + SLICE):
                return found(*wrong)
        if time.monotonic() > until:
            break
    return found()
