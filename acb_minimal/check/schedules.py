"""Which schedules an engine is tried under: by seed, and all there are.

A schedule is the order in which the host's calls and the completions of device work follow one another. A seed stands
for a case and a policy, so that a failure can be run again. `Exploration` goes through all schedules of a case, by
running it again for each choice that a schedule has. Where two of them have done the same so far, and memory is the
same too, what can follow is the same: from there only one is followed. So the schedules that are covered are many more
than the runs it takes, and can be counted all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InputError
from ..sim.operations import Operation
from ..sim.policies import Choosing, Eager, Lazy, Random, Timed
from .cases import CASES, LONG, Case
from .endings import Refusal, Stopped
from .hazards import HOST, Checker
from .judge import Outcome, serve

FIXED = (Timed, Lazy, Eager)
LONG_POLICIES = {"timed": Timed, "lazy": Lazy, "eager": Eager}
END, VOID = "end", "void"
HARM_SEEDS = 60  # that are tried for a wrong token


def replay(engine_class: type, seed: str, checker: Checker | None = None) -> Outcome:
    """Runs the schedule that a seed stands for.

    Args:
        seed: a number, for a case and a policy; or a case and the choices in it, as `search` names them; or the long
            case and a policy, "long:lazy".
        checker: who looks on; by default one that nobody else knows.

    Raises:
        InputError: there is no such schedule.
    """
    name, _, choices = seed.partition(":")
    if name == LONG.name and choices in LONG_POLICIES:
        return serve(engine_class, LONG, LONG_POLICIES[choices](), checker)
    cases = {case.name: case for case in CASES}
    if seed.isdecimal():
        rounds, index = divmod(int(seed), len(CASES))
        policy = FIXED[rounds]() if rounds < len(FIXED) else Random(int(seed))
        return serve(engine_class, CASES[index], policy, checker)
    digits = choices.split(".") if choices else []
    if name not in cases or not all(digit.isdecimal() for digit in digits):
        raise InputError(f"unknown seed {seed!r}: give a number from 0, or what acb check has printed")
    return serve(engine_class, cases[name], Script([int(digit) for digit in digits]), checker)


@dataclass(frozen=True)
class Verdict:
    """What a search has found.

    Attributes:
        seed: of the first schedule that went wrong; None if none did.
        outcome: how it went wrong.
        schedules: how many different schedules were run, from start to end, one by one.
        explorations: what was gone through choice by choice; empty if something went wrong before.
        harm: the seed of a schedule in which a token came out wrong, and its outcome: where there was a hazard, and one
            of HARM_SEEDS showed what it can do; else None.
        horizon: batches of the longest case.
    """

    seed: str | None
    outcome: Outcome | None
    schedules: int
    explorations: list["Exploration"]
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
) -> Verdict:
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
    explorations: list[Exploration] = []

    def failed(seed: str, outcome: Outcome) -> Verdict:
        progress("looking for a wrong token")
        return Verdict(seed, outcome, len(seen), explorations, harm(engine_class, seed, outcome))

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
        horizon = max(action.batch_number or 0 for action in outcome.checker.actions) + 1
    for case in CASES:
        explorations.append(Exploration(engine_class, case))
        progress(f"all schedules of {case.name!r}")
        if found := explorations[-1].follow(runs):
            return failed(*found)
    there_are = sum(exploration.schedules() for exploration in explorations)
    # Where there are few, the last of them may not turn up for long.
    for number in range(fixed, fixed + 2 * schedules):
        if len(seen) >= min(schedules, there_are):
            break
        if not (outcome := run(number)).clean:
            return failed(str(number), outcome)
    return Verdict(None, None, len(seen), explorations, horizon=horizon)


class Script(Choosing):
    """A policy that makes the choices it is given, and then always the first.

    Records and waits run as soon as they can: when they do changes nothing but what is ready. To run nothing is the
    last choice.

    Attributes:
        choices: those that it is given.
        made: those that it has made so far.
    """

    def __init__(self, choices: Sequence[int] = ()):
        self.choices = choices
        self.made: list[int] = []

    def choose(self, ready: list[Operation], must: bool) -> Operation | None:
        for operation in ready:
            if operation.engine is None:
                return operation
        options = ready if must else [*ready, None]
        self.made.append(self.pick(len(options), must))
        if self.made[-1] >= len(options):
            raise Refusal(f"choice {self.made[-1]} of a seed: there are only {len(options)} at that point")
        return options[self.made[-1]]

    def pick(self, options: int, must: bool) -> int:
        """Which of so many options."""
        return self.choices[len(self.made)] if len(self.made) < len(self.choices) else 0


class Exploration:
    """All schedules of a case, as far as they have been followed.

    Attributes:
        runs: how many times the case was run.
    """

    def __init__(self, engine_class: type, case: Case):
        self.engine_class, self.case = engine_class, case
        self.runs = 0
        self._todo: list[tuple[int, ...]] = [()]
        self._next: dict[State, list[State | str]] = {}

    @property
    def states(self) -> int:
        """Points at which a schedule has a choice."""
        return len(self._next)

    @property
    def complete(self) -> bool:
        """Whether all of them have been followed."""
        return not self._todo

    def follow(self, runs: int) -> tuple[str, Outcome] | None:
        """Runs the case up to so many times.

        Returns:
            The seed of the first schedule that is not clean, and its outcome; None if all are.

        Raises:
            InputError: the engine did not do the same thing twice.
        """
        while self._todo and self.runs < runs:
            self.runs += 1
            checker = Checker()
            walk = _Walk(self, self._todo.pop(), checker)
            try:
                outcome = serve(self.engine_class, self.case, walk, checker=checker)
            except Stopped:
                continue
            walk.arrive(END)
            if not outcome.clean:
                return f"{self.case.name}:{'.'.join(map(str, walk.made))}", outcome
        return None

    def schedules(self) -> int:
        """How many different schedules are covered."""
        counts: dict[State | str, int] = {END: 1, VOID: 0}
        for state in sorted(self._next, key=lambda state: -state.events):  # those that come after a state first
            counts[state] = sum(counts.get(after, 0) for after in self._next[state])
        return counts[min(self._next, key=lambda state: state.events)] if self._next else min(self.runs, 1)


class State(NamedTuple):
    """All that what follows depends on.

    Attributes:
        events: how many there were.
        host: what the host has done, asked and seen, in order: a hash.
        device: what the device has done, in whatever order.
        memory: what is in it: a hash.
    """

    events: int
    host: int
    device: frozenset[tuple[str, int]]
    memory: int


class _Walk(Script):
    """Follows the choices it is given, then goes on where nobody has been."""

    def __init__(self, exploration: Exploration, choices: tuple[int, ...], checker: Checker):
        super().__init__(choices)
        self.exploration, self.checker = exploration, checker
        self.state: State | None = None

    def pick(self, options: int, must: bool) -> int:
        state = self._look()
        if must and state == self.state:
            # The host waits, and since the choice to run nothing, nothing has happened: what runs now could have run
            # then, so there is no schedule here that the other choices do not lead to.
            self.arrive(VOID)
            raise Stopped
        self.arrive(state)
        self.state = state
        if len(self.made) < len(self.choices):
            if state not in self.exploration._next:
                raise Refusal("the engine did not do the same thing twice: its schedules cannot be explored")
            return self.choices[len(self.made)]
        if state in self.exploration._next:
            raise Stopped
        self.exploration._next[state] = [VOID] * options
        self.exploration._todo += [(*self.made, choice) for choice in range(1, options)]
        return 0

    def arrive(self, state: "State | str") -> None:
        """Notes where the last choice has led."""
        if self.state is not None:
            self.exploration._next[self.state][self.made[-1]] = state

    def _look(self) -> State:
        host, device = [], []
        for kind, action in self.checker.events:
            (host if kind != "done" or action.actor == HOST else device).append((kind, action.number))
        return State(len(host) + len(device), hash(tuple(host)), frozenset(device), self.checker.memories.fingerprint())
