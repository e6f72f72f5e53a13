"""What those wait who ask: latencies of a run whose requests arrive over time.

The names and definitions are those of vLLM's benchmark (vllm/benchmarks/serve.py, `calculate_metrics`) and SGLang's
(python/sglang/bench_serving.py, `calculate_metrics`), so that figures can be set beside theirs:

    TTFT   time to first token: from a request's arrival to its first token
    E2EL   end-to-end latency: from its arrival to its last token
    TPOT   time per output token, a mean for each request: (E2EL - TTFT) / (tokens - 1); none for a single token
    ITL    inter-token latency: from each token to the next, of all requests together
    goodput   requests a second that keep within all limits given; the TPOT of a single token counts as 0

Percentiles are interpolated linearly, as numpy.percentile does by default. Requests that were cancelled do not count. A
token's time is that at which the host has taken it in (scheduler.update). There is no network here and no text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from rich.table import Table

from ..run.arrivals import Life
from ..run.session import Session
from ..trace.formatting import in_ms
from ..trace.formatting import table as empty_table

MEASURES = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = {"median": 50, "p90": 90, "p99": 99}


@dataclass(frozen=True)
class Spread:
    """What half, 90 % and 99 % of some times do not exceed, in seconds; and their mean."""

    median: float
    p90: float
    p99: float
    mean: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Spread | None":
        """None of no times."""
        times = list(seconds)
        if not times:
            return None
        return cls(*(float(np.percentile(times, each)) for each in PERCENTILES.values()), float(np.mean(times)))


@dataclass(frozen=True)
class Latency:
    """The latencies of a run.

    Attributes:
        ttft, e2el: of all requests that finished; None if none did.
        tpot, itl: of those with more than one token; None if there are none.
        finished: requests, without those that were cancelled.
        requests_per_second: those that finished, over the time from the start of the run to the last token.
        tokens_per_second: theirs, likewise.
        goodput: those of them that kept within the limits, likewise; None if there are no limits.
        limits: seconds, by the name of the measure.
    """

    ttft: Spread | None
    tpot: Spread | None
    itl: Spread | None
    e2el: Spread | None
    finished: int
    requests_per_second: float
    tokens_per_second: float
    goodput: float | None
    limits: Mapping[str, float]

    @classmethod
    def of(cls, lives: Iterable[Life], started: float, limits: Mapping[str, float] | None = None) -> "Latency":
        """Of requests with these lives in a run that started then, in seconds on the same clock. The limits are
        those of goodput: seconds for "ttft" and "tpot"."""
        lives, limits = list(lives), limits or {}
        done = [life for life in lives if life.tokens and not life.cancelled]
        own = [
            {
                "ttft": life.tokens[0] - life.arrived,
                "tpot": (life.tokens[-1] - life.tokens[0]) / max(len(life.tokens) - 1, 1),
                "e2el": life.tokens[-1] - life.arrived,
            }
            for life in done
        ]
        several = [times["tpot"] for times, life in zip(own, done, strict=True) if len(life.tokens) > 1]
        seconds = max((life.tokens[-1] for life in lives if life.tokens), default=started) - started
        good = sum(all(times[name] <= most for name, most in limits.items()) for times in own)

        def rate(count: int) -> float:
            return count / seconds if seconds else 0.0

        return cls(
            Spread.of(times["ttft"] for times in own),
            Spread.of(several),
            Spread.of(after - before for life in done for before, after in pairwise(life.tokens)),
            Spread.of(times["e2el"] for times in own),
            len(done),
            rate(len(done)),
            rate(sum(len(life.tokens) for life in done)),
            rate(good) if limits else None,
            limits,
        )


def of_session(session: Session) -> Latency | None:
    """Of a session that has been served to its end; None if its requests did not arrive over time."""
    if (asked := session.arrivals) is None:
        return None
    limits = {name: limit for name, limit in (("ttft", asked.ttft), ("tpot", asked.tpot)) if limit is not None}
    return Latency.of(session.scheduler.lives.values(), session.started, limits)


def stored(latency: Latency | None) -> dict | None:
    """As JSON has it."""
    return latency and asdict(latency)


# --- tables, of what is stored ---


def table(latency: dict) -> Table:
    """The latencies of one run, for a terminal."""
    figures = f"{latency['requests_per_second']:.2f} requests/s"
    figures += f", goodput {latency['goodput']:.2f}/s" if latency["limits"] else ""
    made = empty_table("", "ms", *PERCENTILES, "mean", caption=f"{figures}. {_caption(latency)}")
    for name in MEASURES:
        made.add_row(name.upper(), *_cells(latency[name], (*PERCENTILES, "mean")))
    return made


def tables(entry: dict) -> list[Table]:
    """The latencies of a comparison of chapters side by side, if it has such: two narrow tables."""
    rows = {row["chapter"]: row["latency"] for row in entry["chapters"] if row.get("latency")}
    first = next(iter(rows.values()), None)
    return [_beside(rows, ("ttft", "tpot")), _beside(rows, ("itl", "e2el"), first)] if rows else []


def _beside(rows: dict[str, dict], measures: tuple[str, ...], first: dict | None = None) -> Table:
    heads = [f"{name.upper()}\n{percentile}" for name in measures for percentile in PERCENTILES]
    rates = ("requests\n/s", "goodput") if first and first["limits"] else ("requests\n/s",) if first else ()
    made = empty_table("", "ms", *heads, *rates, caption=_caption(first) if first else "", apart=1)
    for chapter, latency in rows.items():
        cells = [cell for name in measures for cell in _cells(latency[name], PERCENTILES)]
        figures = (latency["requests_per_second"], latency["goodput"])[: len(rates)]
        made.add_row(chapter, *cells, *(f"{figure:.2f}" for figure in figures))
    return made


def _cells(spread: dict | None, names: Iterable[str]) -> list[str]:
    return ["-" if spread is None else in_ms(spread[name], 1) for name in names]


def _caption(latency: dict) -> str:
    limits = " and ".join(f"{name.upper()} <= {in_ms(most, 0)} ms" for name, most in latency["limits"].items())
    goodput = f" goodput: those a second with {limits}." if limits else ""
    return (
        f"Of {latency['finished']:,} requests, from their arrival: TTFT to the first token, E2EL to the last; TPOT = "
        f"(E2EL - TTFT) / (tokens - 1); ITL from a token to the next.{goodput}"
    )
