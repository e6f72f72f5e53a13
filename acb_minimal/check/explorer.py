"""All schedules of a case, choice by choice.

A case is run again for each choice that a schedule has. Where two schedules have done the same so far, and memory is
the same too, what can follow is the same: from there only one is followed. So the schedules that are covered are many
more than the runs it takes, and can be counted all the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ..sim.operations import Operation
from ..sim.policies import Choosing
from .actions import HOST
from .cases import Case
from .judge import Outcome, serve
from .race_detector import RaceDetector
from .watchdog import Refusal, Stopped

END, VOID = "end", "void"


class Script(Choosing):
    """A policy that makes the choices it is given, and then always the first. Attribute `made`: all of them so far.

    Records and waits run as soon as they can: when they do changes nothing but what is ready. To run nothing is the
    last choice.
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


class Point(NamedTuple):
    """All that what follows depends on."""

    events: int  # how many there were
    host: int  # what the host has done, asked and seen, in order: a hash
    device: frozenset[tuple[str, int]]  # what the device has done, in whatever order
    memory: int  # what is in it: a hash


class Explored(NamedTuple):
    """How far a case has been followed."""

    case: str  # its name
    schedules: int  # how many different ones are covered
    complete: bool  # whether these are all
    states: int  # points at which a schedule has a choice
    runs: int  # how many times the case was run


class ScheduleExplorer:
    """All schedules of a case, as far as they have been followed. Attribute `runs`: how many times the case was run."""

    def __init__(self, engine_class: type, case: Case):
        self.engine_class, self.case = engine_class, case
        self.runs = 0
        self._todo: list[tuple[int, ...]] = [()]
        self._next: dict[Point, list[Point | str]] = {}

    @property
    def complete(self) -> bool:
        """Whether all of them have been followed."""
        return not self._todo

    def explored(self) -> Explored:
        """How far that is."""
        return Explored(self.case.name, self.schedules(), self.complete, len(self._next), self.runs)

    def follow(self, runs: int) -> tuple[str, Outcome] | None:
        """Runs the case up to so many times in all.

        Returns:
            The seed of the first schedule that is not clean, and its outcome; None if all are.

        Raises:
            InputError: the engine did not do the same thing twice.
        """
        while self._todo and self.runs < runs:
            self.runs += 1
            detector = RaceDetector()
            walk = _Walk(self, self._todo.pop(), detector)
            try:
                outcome = serve(self.engine_class, self.case, walk, detector=detector)
            except Stopped:
                continue
            walk.arrive(END)
            if not outcome.clean:
                return f"{self.case.name}:{'.'.join(map(str, walk.made))}", outcome
        return None

    def schedules(self) -> int:
        """How many different schedules are covered."""
        counts: dict[Point | str, int] = {END: 1, VOID: 0}
        states = sorted(self._next, key=lambda state: -state.events)  # those that come after a state first
        for state in states:
            counts[state] = sum(counts.get(after, 0) for after in self._next[state])
        return counts[min(self._next, key=lambda state: state.events)] if states else min(self.runs, 1)


class _Walk(Script):
    """Follows the choices it is given, then goes on where nobody has been."""

    def __init__(self, explorer: ScheduleExplorer, choices: tuple[int, ...], detector: RaceDetector):
        super().__init__(choices)
        self.explorer, self.detector = explorer, detector
        self.state: Point | None = None

    def pick(self, options: int, must: bool) -> int:
        state = self._look()
        if must and state == self.state:
            # The host waits, and since the choice to run nothing, nothing has happened: what runs now could have run
            # then, so there is no schedule here that the other choices do not lead to.
            raise Stopped
        self.arrive(state)
        self.state = state
        if len(self.made) < len(self.choices):
            if state not in self.explorer._next:
                raise Refusal("the engine did not do the same thing twice: its schedules cannot be explored")
            return self.choices[len(self.made)]
        if state in self.explorer._next:
            raise Stopped
        self.explorer._next[state] = [VOID] * options  # until somebody arrives there
        self.explorer._todo += [(*self.made, choice) for choice in range(1, options)]
        return 0

    def arrive(self, state: "Point | str") -> None:
        """Notes where the last choice has led."""
        if self.state is not None:
            self.explorer._next[self.state][self.made[-1]] = state

    def _look(self) -> Point:
        host, device = [], []
        for kind, action in self.detector.events:
            (host if kind != "done" or action.actor == HOST else device).append((kind, action.number))
        memory = self.detector.memories.fingerprint()
        return Point(len(host) + len(device), hash(tuple(host)), frozenset(device), memory)
