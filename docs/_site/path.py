"""What the pages of the course may call: pictures and tables of what the engines did, simulated or measured."""

import re

import comparisons
import notebooks
import widgets
import worked
from figures import RESULTS, origin

from acb_minimal.measure import metrics, result_table
from acb_minimal.run.engines import chapter_path, chapter_paths
from acb_minimal.trace.breakdown import PARTS, Breakdown
from acb_minimal.trace.formatting import in_ms
from acb_minimal.trace.law import Law

IDEAS = {"wide": "8B, 384 requests", "small": "1B, 128 requests", "long": "8B, 32 requests of 4,000 tokens"}


class Path:
    """Mixed into Page."""

    def minutes(self, page: str = "") -> str:
        """How long it takes to read a page, or the whole course; known once all pages are made (reading.py)."""
        return f"<!-- minutes {page} -->"

    def listing(self, chapter: str, before: str = "") -> str:
        """All of a chapter's code, with what is new since another one marked."""
        return widgets.listing(chapter_path(chapter), chapter_path(before) if before else None)

    def bars(self, *which: str) -> str:
        """Measured decode steps as bars, each "WORKLOAD CHAPTER"."""
        entries, groups = metrics.load(RESULTS / "h200.json"), {}
        for load, chapter in (each.split() for each in which):
            step = result_table.breakdowns(entries[load])[chapter_path(chapter).stem]
            group = groups.setdefault(f"<code>{load}</code>: {IDEAS[load]}", {})
            group[f"chapter {chapter[2]}"] = parts_in_ms(step)
        loads = dict.fromkeys(each.split()[0] for each in which)
        return widgets.bars(groups) + self.source("h200.json", *loads)

    def klh(self) -> str:
        """K, L and H of each workload, kernel by kernel and as graphs (chapters 1 and 6), and the law's speedup."""
        heads = ("workload", "K", "L", "H", "sets the pace", "speedup", "K, graphs", "L, graphs", "speedup, graphs")
        lines = [f"| {' | '.join(heads)} |", "| --- | ---: | ---: | ---: | --- |" + " ---: |" * 4]
        for load, idea in IDEAS.items():
            eager, graph = self.step(load, "ch1"), self.step(load, "ch6")
            laws = [Law(step.on_gpu, step.launching, eager.bubbles) for step in (eager, graph)]
            plain, graphs = ([in_ms(law.on_gpu), in_ms(law.launching), f"{law.speedup:.2f}"] for law in laws)
            pace = "the GPU" if eager.launching + eager.bubbles <= eager.on_gpu else "launching"
            cells = [f"`{load}`: {idea}", *plain[:2], in_ms(eager.bubbles), pace, plain[2], *graphs]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n\n" + self.source("h200.json", *IDEAS)

    def worst(self, decodes: str, step: str, law: str) -> str:
        """How far the law is off at its worst, as a percentage of what was measured."""
        rows = [row for row in self.rows("law.json", "law") if row["decodes"] == decodes]
        return f"{max(abs(row[step] / row[law] - 1) for row in rows):.1%}".replace("%", " %")

    def gain(self, load: str, host_work: float) -> str:
        """The measured speedup of asynchrony, with graphs and so many ms of host work added."""
        return f"{self.law(load, host_work=host_work).gain:.2f}"

    def two_by_two(self) -> str:
        """Steps without graphs and asynchrony, with either, with both, in ms."""
        heads = ("neither", "asynchrony alone", "graphs alone", "both", "saved by graphs", "by asynchrony on top")
        lines = [f"| ms per decode step | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for load in IDEAS:
            eager, graph = self.law(load, "one by one"), self.law(load)
            steps = (eager.synchronous, eager.asynchronous, graph.synchronous, graph.asynchronous)
            saved = (1 - graph.synchronous / eager.synchronous, 1 - graph.asynchronous / graph.synchronous)
            cells = [*(f"{1e3 * step:.2f}" for step in steps), *(f"{100 * share:.1f} %" for share in saved)]
            lines.append(f"| `{load}` | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n\n" + self.source("law.json", "law")

    def one_stream(self) -> str:
        """The mean bubble with three streams and with one in their place, chapter by chapter."""
        found = [
            (chapter, each.simulated)
            for chapter in list(chapter_paths())[1:]
            for each in self.deletions(chapter)
            if each.line and "cuda.Stream()" in each.text
        ]
        lines = [f"| mean bubble, simulated `wide` | {' | '.join(f'chapter {chapter[2]}' for chapter, _ in found)} |"]
        lines.append("| --- |" + " ---: |" * len(found))
        for text, column in (("three streams", "with"), ("one stream", "without")):
            cells = (f"{row[f'bubble {column} it (us)']:.1f} us" for _, row in found)
            lines.append(f"| {text} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n\n" + self.source("deletions.json", "ch5_carry_over")

    def without(self, chapter: str, *begins: str) -> str:
        """What became of a chapter without each line that has one of these in it: on the simulator, on the GPU."""
        lines = ["| line | without | simulated | H200: wrong of 200 |"]
        lines.append("| ---: | --- | --- | --- |")
        for each in self.deletions(chapter):
            if each.line and any(text in each.text for text in begins) and "with " not in each.text:
                lines.append(f"| {each.line} | `{each.text}` | {found(each)} | {seen(each)} |")
        stem = chapter_path(chapter).stem
        facts = [self._facts(file, stem) for file in ("deletions.json", "deletions_cuda.json")]
        return "\n".join(lines) + "\n\n" + widgets.source(facts)

    def _facts(self, file: str, name: str) -> str:
        found = result_table.load(RESULTS / file)[name]
        return origin(found.environment | {"command": found.command})

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
        table = [f"| {' | '.join(cells + [''] * (len(lines[0]) - len(cells)))} |" for cells in lines]
        table.insert(1, "| --- |" + " --- |" * (len(lines[0]) - 1))
        return "\n".join(table) + "\n\n" + widgets.source([notebooks.where(self._notebook(chapter))])

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
        """Chapter 1 above chapter 5, at about the host work of the published run, as measured for the law."""
        point = self.law("wide", host_work=8.0)
        k, span = point.kernels, 4 * point.synchronous
        rows = {}
        for name, step in (("Chapter 1", point.synchronous), ("Chapter 5", point.asynchronous)):
            row, at, number = [], 0.0, 1
            while at < span - 1e-9:
                busy = min(k if step == point.synchronous else step, span - at)
                row.append((f"kernels n{number % 2}", busy, f"batch {number}" if busy > k / 2 else ""))
                if step == point.synchronous:
                    row.append(("bubbles", step - busy, "idle"))
                at, number = at + step, number + 1
            rows[name] = row
        facts = self.source("law.json", "law")
        return (
            '<figure class="opening" markdown="0">'
            f'<p class="speedup"><b>{point.gain:.2f}×</b> the tokens a second, from the same GPU, model and kernels</p>'
            + widgets.lanes("The GPU, one batch at a time and one batch ahead", rows, span, "NVIDIA H200, measured")
            + f"<figcaption>An 8B model, 384 requests at a time, {1e3 * point.host:.1f} ms of bookkeeping in each step "
            f"of {1e3 * point.synchronous:.1f} ms, about as much as in "
            '<a href="https://huggingface.co/blog/continuous_async">a published run</a>. Red: the GPU has nothing to '
            f"run. Drawn from medians of decode steps.{facts}</figcaption></figure>\n"
        )

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
        """Fields for K, L and H, and what the law says of them."""
        fields = "".join(
            f'<label>{name} <input type="number" min="0" step="any" value="{value}" data-time="{name}"> ms</label>'
            for name, value in (("K", 12), ("L", 0.1), ("H", 3))
        )
        return f'<div class="calculator" markdown="0">{fields}<output></output></div>\n'

    def carried_over(self) -> str:
        """The tokens of a batch on their way into the next one, in which rows have changed place."""
        return worked.carried_over()


def parts_in_ms(step: Breakdown) -> dict[str, float]:
    """The parts of a step by name."""
    return {name.replace("_", " "): 1e3 * getattr(step, name) for name in PARTS}


def repeated(bars: list[tuple], length: float) -> list[tuple]:
    """Bars over and over until all of a length is filled."""
    made, left = [], length
    while left > 1e-9:
        for kind, size, text in bars:
            if left > 1e-9:
                made.append((kind, min(size, left), text if size <= left else ""))
                left -= size
    return made


def found(deletion: comparisons.Deletion) -> str:
    """What the simulator found without a line."""
    if deletion.needed:
        what = {"hazard in batch": "a hazard", "wrong token in batch": "wrong tokens", "error": "an error"}
        return ", ".join(text for name, text in what.items() if deletion.simulated[name] is not None)
    before, after = (deletion.simulated[f"bubble {how} it (us)"] for how in ("with", "without"))
    return f"slow: bubbles of {before:.0f} us become {after:.0f} us" if after - before > 1 else "nothing"


def seen(deletion: comparisons.Deletion) -> str:
    """What the runs on the GPU showed."""
    if deletion.real["error"] is None:
        return ", ".join(map(str, deletion.wrong))
    return f'<abbr title="{deletion.real["error"].split("; ")[0]}">an error</abbr>'
