"""What the pages of the course may call: pictures and tables of what the engines did, simulated or measured."""

import re

import notebooks
import plots
import widgets
from figures import rows
from measured import LOADS, Measured

from acb_minimal.run.engines import chapter_path
from acb_minimal.trace.formatting import in_ms, markdown
from acb_minimal.trace.law import Law


class Course(Measured):
    """Mixed into Page."""

    def minutes(self, page: str = "") -> str:
        """How long it takes to read a page, or the whole course; known once all pages are made (reading.py)."""
        return f"<!-- minutes {page} -->"

    def listing(self, chapter: str, before: str = "") -> str:
        """All of a chapter's code, with what is new since another one marked."""
        return widgets.listing(chapter_path(chapter), chapter_path(before) if before else None)

    def klh(self) -> str:
        """K, L and H of each workload, kernel by kernel and as graphs (chapters 1 and 6), and the law's speedup."""
        heads = ("workload", "K", "L", "H", "sets the pace", "speedup", "K, graphs", "L, graphs", "speedup, graphs")
        lines = []
        for load, idea in LOADS.items():
            eager, graph = self.step(load, "ch1"), self.step(load, "ch6")
            laws = (Law(step.on_gpu, step.launching, eager.bubbles) for step in (eager, graph))
            plain, graphs = ([in_ms(law.on_gpu), in_ms(law.launching), f"{law.speedup:.2f}"] for law in laws)
            pace = "the GPU" if eager.launching + eager.bubbles <= eager.on_gpu else "launching"
            lines.append([f"`{load}`: {idea}", *plain[:2], in_ms(eager.bubbles), pace, plain[2], *graphs])
        return f"{markdown(heads, lines)}\n\n{self.source('h200.json', *LOADS)}"

    def worst(self, decodes: str, step: str, law: str) -> str:
        """How far the law is off at its worst, as a percentage of what was measured."""
        found = [row for row in rows("law.json", "law") if row["decodes"] == decodes]
        return f"{max(abs(row[step] / row[law] - 1) for row in found):.1%}".replace("%", " %")

    def gain(self, load: str, host_work: float) -> str:
        """The measured speedup of asynchrony, with graphs and so many ms of host work added."""
        return f"{self.law(load, host_work=host_work)['gain']:.2f}"

    def two_by_two(self) -> str:
        """Steps without graphs and asynchrony, with either, with both, in ms."""
        heads = ("neither", "asynchrony alone", "graphs alone", "both", "saved by graphs", "by asynchrony on top")
        lines = []
        for load in LOADS:
            laws = self.law(load, "one by one"), self.law(load)
            (neither, alone), (graphs, both) = ((law["synchronous"], law["asynchronous"]) for law in laws)
            saved = [f"{100 * (1 - after / before):.1f} %" for before, after in ((neither, graphs), (graphs, both))]
            lines.append([f"`{load}`", *(f"{ms:.2f}" for ms in (neither, alone, graphs, both)), *saved])
        return f"{markdown(('ms per decode step', *heads), lines)}\n\n{self.source('law.json', 'law')}"

    def tried(self, chapter: str) -> str:
        """How many answers of a chapter and its broken engines were right, by schedule, as its notebook has it."""
        return self._counted(chapter, "simulate(")

    def tried_here(self, chapter: str) -> str:
        """How many answers of a broken engine were right on the GPU of the chapter's notebook."""
        return self._counted(chapter, "try_here(")

    def _counted(self, chapter: str, call: str) -> str:
        title, head, _, *rows = notebooks.printed(self._notebook(chapter), call).splitlines()
        lines = [re.split(r"\s{2,}", line.strip()) for line in (head, *rows) if line.strip()]
        lines[0][0] = title
        heads, *cells = ([*line, *[""] * (len(lines[0]) - len(line))] for line in lines)
        table = markdown(heads, cells, [False] * len(heads))
        return f"{table}\n\n{widgets.source([notebooks.where(self._notebook(chapter))])}"

    def batching(self, caption: str) -> str:
        """What a scheduler does with requests that come and go, with fixed batches and without."""
        told = f"<figcaption>{caption} Counted by this course's scheduler, not timed.</figcaption>"
        return f'<figure class="both" markdown="0">{plots.batching()}{told}</figure>\n'

    def hazard(self) -> str:
        """Two accesses that nothing orders, in both orders."""
        meant = {"h2d": [("a", 3, "upload writes")], "compute": [("", 3.3, ""), ("b", 4, "forward pass reads")]}
        late = {"h2d": [("", 4.3, ""), ("a", 3, "upload writes")], "compute": [("race", 4, "forward reads old inputs")]}
        return (
            '<figure class="both" markdown="0">'
            + widgets.lanes("What was meant", meant, 7.3)
            + widgets.lanes("What nothing forbids", late, 7.3)
            + "</figure>\n"
        )

    def opening(self) -> str:
        """Chapter 1 above chapter 5, at about the host work of the published run."""
        point, lanes, span = self.opening_lanes()
        return (
            '<figure class="opening" markdown="0">'
            f'<p class="speedup"><b>{point["gain"]:.2f}×</b> the tokens a second, from the same GPU, model and '
            "kernels</p>"
            + widgets.lanes("The GPU, one batch at a time and one batch ahead", lanes, span, "NVIDIA H200, measured")
            + f"<figcaption>An 8B model, 384 requests at a time, {point['H']:.1f} ms of bookkeeping in each step "
            f"of {point['synchronous']:.1f} ms, about as much as in "
            '<a href="https://huggingface.co/blog/continuous_async">a published run</a>. Red: the GPU has nothing to '
            f"run. Drawn from medians of decode steps.{self.source('law.json', 'law')}</figcaption></figure>\n"
        )

    def opening_lanes(self) -> tuple[dict, dict[str, list[tuple]], float]:
        """What the GPU does in four synchronous steps, as measured for the law: the measurement, a lane for each
        engine, and their length in ms."""
        point = self.law("wide", host_work=8.0)
        k, span, lanes = point["K"], 4 * point["synchronous"], {}
        for name, step in (("Chapter 1", point["synchronous"]), ("Chapter 5", point["asynchronous"])):
            lane, at, number = [], 0.0, 1
            while at < span - 1e-9:
                busy = min(k if name == "Chapter 1" else step, span - at)
                lane.append((f"kernels n{number % 2}", busy, f"batch {number}" if busy > k / 2 else ""))
                if name == "Chapter 1":
                    lane.append(("bubbles", step - busy, "idle"))
                at, number = at + step, number + 1
            lanes[name] = lane
        return point, lanes, span

    def law_picture(self) -> str:
        """Steps of a synchronous and an asynchronous engine, with launching that is short and long."""
        span = 28
        host, wait = "host", "wait"
        short = [("kernels", 10, "K = 10")]  # launched in 4
        long = [("kernels", 1.5, ""), ("launch-gaps", 1, "")] * 4  # K = 6, launched in 10
        cases = {
            "Launching is short (L < K): H is hidden": (
                ([("launching", 4, "L"), (wait, 6, wait), (host, 4, "H")], [*short, ("bubbles", 4, "")]),
                ([("launching", 4, "L"), (host, 4, "H"), (wait, 2, "")], short),
            ),
            "Launching is long (L > K): nothing is hidden": (
                ([("launching", 10, "L"), (host, 4, "H")], [*long, ("bubbles", 4, "")]),
                ([("launching", 10, "L"), (host, 4, "H")], [*long, ("bubbles", 4, "")]),
            ),
        }
        names = (("synchronous", "max(K, L) + H"), ("asynchronous", "max(K, L + H)"))
        made = []
        for title, both in cases.items():
            made.append(f"<div><h4>{title}</h4>")
            for (name, formula), (cpu, gpu) in zip(names, both, strict=True):
                rows = {"CPU": repeated(cpu, span), "GPU": repeated(gpu, span)}
                made.append(widgets.lanes(name, rows, span, f"step = {formula} = {sum(bar[1] for bar in gpu):g}"))
            made.append("</div>")
        kinds = ("kernels", "kernels run"), ("launch-gaps", "launch gaps"), ("bubbles", "bubbles")
        legend = "".join(f'<span><i class="{kind}"></i>{text}</span>' for kind, text in kinds)
        return (
            f'<figure class="law" markdown="0">{"".join(made)}<figcaption><p class="legend">{legend}</p>A schematic, '
            "with K = 10, L = 4, H = 4 in the first pair, K = 6, L = 10, H = 4 in the second.</figcaption></figure>\n"
        )

    def calculator(self) -> str:
        """Fields for K, L and H, or for a step and the GPU's active share of it; and what the law says of them."""

        def field(name: str, value: float, unit: str, label: str = "") -> str:
            entry = f'<input type="number" min="0" step="any" value="{value}" data-time="{name}">'
            return f"<label>{label or name} {entry} {unit}</label>"

        times = "".join(field(name, value, "ms") for name, value in (("K", 12), ("L", 0.1), ("H", 3)))
        whole = field("step", 15, "ms", "or: a synchronous step") + field("active", 80, "%", "GPU active")
        return f'<div class="calculator" markdown="0"><p>{times}</p><p>{whole}</p><output></output></div>\n'


def repeated(bars: list[tuple], length: float) -> list[tuple]:
    """Bars over and over until all of a length is filled."""
    made, left = [], length
    while left > 1e-9:
        for kind, size, text in bars:
            if left > 1e-9:
                made.append((kind, min(size, left), text if size <= left else ""))
                left -= size
    return made
