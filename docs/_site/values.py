"""What a page may use in a sentence: values from docs/results and from the code, none of them written by hand."""

import ast
from types import SimpleNamespace

import comparisons
import first
import published
from figures import RESULTS, closed_up, stored

from acb_minimal.measure import metrics, result_table
from acb_minimal.run.engines import chapter_path, chapter_paths
from acb_minimal.run.workload import WORKLOADS, Workload
from acb_minimal.sim import costs
from acb_minimal.trace import breakdown
from acb_minimal.trace.spans import Trace


class Values:
    """What every page may take values from."""

    def title(self, file: str, name: str) -> str:
        """What a stored table is called."""
        return result_table.load(RESULTS / file)[name].title

    def rows(self, file: str, name: str) -> list[dict]:
        """The rows of a stored table, to take values from by the names of the columns."""
        return comparisons.rows(result_table.load(RESULTS / file)[name])

    def step(self, workload: str, chapter: str, file: str = "h200.json") -> SimpleNamespace:
        """A stored breakdown, in seconds: step, its parts as Breakdown has them, on_gpu (K) and launching."""
        row = self._chapter(file, workload, chapter)
        parts = result_table.stored_breakdown(row["breakdown"])
        launching = row["law"]["launching"] if "law" in row else row["breakdown"]["launching"]
        return SimpleNamespace(**vars(parts), step=parts.step, on_gpu=parts.on_gpu, launching=launching)

    def run_steps(self, workload: str, chapter: str, file: str = "h200.json") -> list[float]:
        """Seconds of a decode step in each of a chapter's stored runs, in the order in which they were made."""
        return self._chapter(file, workload, chapter)["run_steps"]

    def run(self, workload: str, chapter: str, file: str = "h200.json") -> metrics.Metrics:
        """Stored figures of a whole run: seconds, tokens_per_second, gpu_active and so on."""
        return metrics.Metrics(**self._chapter(file, workload, chapter)["figures"])

    def single_run(self, file: str) -> SimpleNamespace:
        """Stored figures of the one run that `acb run --json` wrote to a file of its own: seconds, steps and so on."""
        return SimpleNamespace(**stored(file)["figures"])

    def same_tokens(self, workload: str, chapter: str) -> float:
        """Share of a chapter's tokens, 0 to 1, that are chapter 1's, place by place."""
        return self._chapter("h200.json", workload, chapter)["same_tokens"]

    def regime(self, model: str, rows: int) -> float:
        """Share of bubbles in a step of the synchronous engine, 0 to 1, for a model and so many sequences."""
        table = self.rows("regimes.json", "regimes")
        return next(row["bubbles"] for row in table if (row["model"], row["rows"]) == (model, rows))

    def law(self, workload: str, decodes: str = "as graphs", host_work: float = 0.0) -> SimpleNamespace:
        """A point of the stored law of overlap, in seconds: kernels, launching and host are K, L and H of the
        synchronous engine.

        Args:
            workload: its name.
            decodes: "as graphs" or "one by one".
            host_work: milliseconds added to a step.
        """
        wanted = (workload, decodes, host_work)
        rows = self.rows("law.json", "law")
        row = next(row for row in rows if (row["workload"], row["decodes"], row["host work"]) == wanted)
        names = dict(kernels="K", launching="L", host="H", synchronous="synchronous", asynchronous="asynchronous")
        return SimpleNamespace(gain=row["gain"], **{name: row[column] / 1e3 for name, column in names.items()})

    def launching(self, workload: str) -> list[float]:
        """L of the synchronous engine that launches kernel by kernel, in seconds, for each amount of host work."""
        rows = self.rows("law.json", "law")
        return [row["L"] / 1e3 for row in rows if (row["workload"], row["decodes"]) == (workload, "one by one")]

    def gained(self) -> list[published.Report]:
        """The reports among these that have a gain."""
        return [report for report in published.REPORTS if max(report.gains.values(), default=1.0) > 1]

    def first_steps(self) -> dict[str, float]:
        """The decode steps in that block, in seconds, by chapter."""
        return first.steps()

    def workload(self, name: str) -> Workload:
        """A named workload."""
        return WORKLOADS[name]

    def costs(self, model: str, compiled: bool = False) -> costs.Costs:
        """What the simulator goes by for a model."""
        return costs.Costs.of(model, compiled=compiled)

    def eager_gap(self) -> float:
        """Seconds that stored results of before are taken to have from one kernel launched by itself to the next."""
        return breakdown.EAGER_GAP

    def between_kernels(self) -> float:
        """Seconds that `acb idle` allows from one kernel of a graph to the next."""
        return breakdown.GRAPH_GAP

    def published(self) -> dict[str, tuple[float, float]]:
        """Hugging Face's run of `headline`, "synchronous" and "asynchronous": seconds, share with the GPU active."""
        return result_table.PUBLISHED

    def trace(self, workload: str, chapter: str) -> Trace:
        """A stored trace, to take values from."""
        return Trace.of_chrome(stored(f"traces/{workload}-{chapter_path(chapter).stem}.json"))

    def closed_up(self, workload: str, chapter: str) -> int:
        """The batch at whose start the figure "closeup-..." of a stored trace has its bubble."""
        return closed_up(self.trace(workload, chapter))

    def around(self, workload: str, chapter: str) -> list[dict[str, float]]:
        """What the batch before `closed_up` took, and what that one took, as Trace.steps has it."""
        trace = self.trace(workload, chapter)
        place = sorted(trace.batches()).index(closed_up(trace))
        return trace.steps()[place - 1 : place + 1]

    def distances(self) -> dict[tuple[str, str], float]:
        """How far off the simulator's furthest part of a step is, as a share of the measured step, by workload and
        chapter."""
        return comparisons.distances(stored("h200.json"), stored("simulated.json"))

    def deletions(self, chapter: str) -> list[comparisons.Deletion]:
        """The chapter as it is, then each line that orders anything taken away by itself, on the simulator and on the
        GPU."""
        stem = chapter_path(chapter).stem
        simulated, real = (result_table.load(RESULTS / file) for file in ("deletions.json", "deletions_cuda.json"))
        return comparisons.joined(stem, simulated.get(stem), real[stem])

    def chapters(self) -> dict[str, str]:
        """The idea of every chapter, by its file's name without .py: what its first line says."""
        first = {stem: ast.get_docstring(ast.parse(path.read_text())) for stem, path in chapter_paths().items()}
        ideas = (text.splitlines()[0].removeprefix(f"Chapter {n}: ") for n, text in enumerate(first.values(), 1))
        return {stem: idea.removesuffix(".") for stem, idea in zip(first, ideas, strict=True)}

    def _chapter(self, file: str, workload: str, chapter: str) -> dict:
        stem = chapter_path(chapter).stem
        return next(row for row in stored(file)[workload]["chapters"] if row["chapter"] == stem)
