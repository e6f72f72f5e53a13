"""Requests that come over time: when, and a scheduler that has them wait for it, wrapped around any other from outside.

No engine knows of it. What has not arrived is in no queue of the scheduler's; an engine with nothing to do is held in
`schedule` until somebody comes.
"""

import json
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError

if TYPE_CHECKING:  # importing it takes seconds: torch
    from ..request import Request


@dataclass(frozen=True)
class Arrivals:
    """When requests arrive: exactly one of `rate`, `concurrency` and `times` says so.

    Attributes:
        rate: so many a second on average, independent of each other (a Poisson process: the time from one to the next
            is distributed exponentially).
        concurrency: so many are there from the start, and each that ends has the next one come (a closed loop).
        times: of each prompt, in seconds from the start of the run.
        seed: of the times that `rate` draws.
        ttft: seconds within which a request has to have its first token to count for goodput; None: any.
        tpot: the same of its time per token behind the first.

    Raises:
        InputError: a value makes no sense, or it is not exactly one of the three.
    """

    rate: float | None = None
    concurrency: int | None = None
    times: tuple[float, ...] | None = None
    seed: int = 0
    ttft: float | None = None
    tpot: float | None = None

    def __post_init__(self):
        ways = "rate", "concurrency", "times"
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none of them"
            raise InputError(f"arrivals take one of {', '.join(ways)}; they were given {told}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise InputError(f"the rate is {self.rate:g} requests a second; it must be more than 0, and finite")
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"the concurrency is {self.concurrency}; it must be at least 1")
        for time in self.times or ():
            if not 0 <= time < math.inf:
                raise InputError(f"a request arrives at {time:g} s; it must be 0 or more, and finite")
        for name in ("ttft", "tpot"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"the limit for {name.upper()} is {1e3 * limit:g} ms; it must be more than 0")

    def due(self, numbers: Sequence[int]) -> list[float]:
        """When the requests of prompts of these numbers arrive, without those that were refused; in seconds from the
        start, infinity where it is when one before it has ended."""
        if self.times is not None:
            return [self.times[number] for number in numbers]
        if self.rate is not None:
            rng = random.Random(self.seed)
            return list(accumulate(rng.expovariate(self.rate) for _ in numbers))
        return [0.0 if place < self.concurrency else math.inf for place in range(len(numbers))]

    def check(self, prompts: int, ranks: object) -> None:
        """InputError if there are not as many times as prompts; or ranks are to share the run: each has a clock of its
        own, and they must schedule the same."""
        if self.times is not None and len(self.times) != prompts:
            raise InputError(f"there are {len(self.times)} times of arrival for {prompts} prompts")
        if ranks:
            raise InputError(f"{self}: on several GPUs all requests have to be there from the start")

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.rate:g} requests a second arrive, seed {self.seed}"
        if self.concurrency is not None:
            return f"{self.concurrency:,} clients, each with one request at a time"
        return f"{len(self.times):,} recorded times of arrival"


class Recorded(NamedTuple):
    """One request as a file of them has it: when it arrives, in seconds from the start, the tokens of its prompt, and
    those to generate."""

    at: float
    prompt_tokens: int
    new_tokens: int


def read_recorded(path: Path) -> list[Recorded]:
    """The requests of a file of JSON lines, `{"at": 0.5, "prompt_tokens": 100, "new_tokens": 20}` each, by their times;
    InputError if it cannot be read, or a line is no such thing."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read arrivals from {str(path)!r}: {error}") from error
    found = [_recorded(f"{str(path)!r}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"{str(path)!r} has no arrivals: it takes a line of JSON for each")
    return sorted(found)


def _recorded(where: str, line: str) -> Recorded:
    try:
        asked = json.loads(line)
    except ValueError:
        asked = None
    if not isinstance(asked, dict) or asked.keys() != set(Recorded._fields):
        raise InputError(f"{where}: it must be a JSON object with {', '.join(Recorded._fields)}; it is {line[:60]!r}")
    for name, least, kind in (("at", 0, "number"), *((each, 1, "whole number") for each in Recorded._fields[1:])):
        value = asked[name]
        if type(value) not in ((int, float) if kind == "number" else (int,)) or not least <= value < math.inf:
            raise InputError(f"{where}: {name} is {value!r}; it must be a {kind} of at least {least}")
    return Recorded(**asked)


@dataclass
class Life:
    """What became of a request over time, in seconds on the device's clock: when it was due, or infinity; when the host
    had taken in each of its tokens; whether it was cancelled."""

    arrived: float = math.inf
    tokens: list[float] = field(default_factory=list)
    cancelled: bool = False


class ArrivingScheduler:
    """In front of a TimedScheduler: requests join `waiting` when their time has come."""

    arrivals: Arrivals

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.coming: deque[Request] = deque()  # those that have not arrived, in order
        self.lives: dict[str, Life] = {}  # of all requests, by id
        self.in_flight = 0  # batches that were handed out and whose tokens have not come back
        self._started = False

    def add(self, request: "Request") -> None:
        super().add(request)
        self.coming.append(self.waiting.pop())
        self.lives[request.id] = Life()

    def _start(self) -> None:
        """The time of the run begins: it is known when each request is due."""
        self._started, now = True, self.device.clock()
        dues = self.arrivals.due([int(request.id) for request in self.coming])
        for request, due in zip(self.coming, dues, strict=True):
            self.lives[request.id].arrived = now + due
        self.coming = deque(sorted(self.coming, key=lambda request: self.lives[request.id].arrived))

    def has_work(self) -> bool:
        """As Scheduler has it; who is still to come is unfinished."""
        return bool(self.coming) or super().has_work()

    def schedule(self):
        """As Scheduler has it. With nothing running, nothing in flight, and somebody to come, it waits for them: an
        engine that has one batch at a time is always given one."""
        if not self._started:
            self._start()
        self._arrive()
        while self.coming and not (self.running or self.waiting or self.in_flight):
            self.device.wait(self.lives[self.coming[0].id].arrived - self.device.clock())
            self._arrive()
        batch = super().schedule()
        self.in_flight += batch is not None
        return batch

    def _arrive(self) -> None:
        """Those whose time has come join `waiting`."""
        now = self.device.clock()
        while self.coming and self.lives[self.coming[0].id].arrived <= now:
            self.waiting.append(self.coming.popleft())

    def update(self, batch, tokens) -> list:
        """As Scheduler has it, and the time is taken."""
        before = {row.request: len(row.request.tokens) for row in batch.rows}
        self.in_flight -= 1
        finished, now = super().update(batch, tokens), self.device.clock()
        for request, count in before.items():
            self.lives[request.id].tokens += [now] * (len(request.tokens) - count)
        for _ in finished:
            self._ended()
        return finished

    def _ended(self) -> None:
        """In a closed loop, the next request comes."""
        lives = (self.lives[request.id] for request in self.coming)
        if life := next((life for life in lives if life.arrived == math.inf), None):
            life.arrived = self.device.clock()

    def cancel(self, id: str) -> "Request | None":
        """As Scheduler has it; also of one that has not arrived."""
        for request in [request for request in self.coming if request.id == id]:
            self.coming.remove(request)
            self.waiting.append(request)
        if request := super().cancel(id):
            self.lives[id].cancelled = True
            self._ended()
        return request

    def abort(self) -> None:
        super().abort()
        self.coming.clear()
