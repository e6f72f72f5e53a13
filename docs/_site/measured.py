"""Tables of what was measured or simulated, drawn from docs/results, each with where it is from."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import widgets
from figures import RESULTS, origin, rows, stored
from rich.console import Console

from acb_minimal.measure import metrics, result_table
from acb_minimal.run.engines import chapter_path, chapter_paths
from acb_minimal.trace.formatting import in_ms, markdown
from acb_minimal.trace.idle import analyse, read
from acb_minimal.trace.law import PARTS
from acb_minimal.trace.tables import render

LOADS = {"wide": "8B, 384 requests", "small": "1B, 128 requests", "long": "8B, 32 requests of 4,000 tokens"}
OTHER = "another-h200.json"
HARM = {"hazard in batch": "a hazard", "wrong token in batch": "wrong tokens", "error": "an error"}


class Measured:
    """Mixed into Page."""

    def source(self, file: str, *names: str) -> str:
        """Where the figures of a file are from, or of these entries: a line for each machine, day and versions."""
        commands: dict[tuple, list[str]] = {}
        for entry in [stored(file)[name] for name in names] or [stored(file)]:
            commands.setdefault(tuple(entry["environment"].items()), []).append(entry["command"])
        lines = (origin(dict(facts) | {"command": "</code>, <code>".join(those)}) for facts, those in commands.items())
        return widgets.source(lines)

    def table(self, file: str, name: str) -> str:
        """A stored table, its note and where it is from."""
        found = result_table.load(RESULTS / file)[name]
        return f"{found.markdown()}\n\n{found.note}\n\n{self.source(file, name)}"

    def switch(self, model: str) -> str:
        """What other teams' switches are worth on a model: the least speedup and the greatest."""
        found = result_table.load(RESULTS / "switches.json")["switches"]
        speedups = [row[list(found.columns).index("speedup")] for row in found.rows if row[1] == model]
        return f"{min(speedups):.2f} to {max(speedups):.2f} times"

    def idle(self, trace: str) -> str:
        """What `acb idle` prints of a trace in tests/data."""
        path = Path(__file__).parents[2] / "tests" / "data" / trace
        (report,) = analyse(read(path))
        console = Console(width=80, file=io.StringIO(), record=True)
        console.print(render(report))
        printed = "\n".join(line.rstrip() for line in console.export_text().splitlines())
        return f"```text\n$ acb idle tests/data/{trace}\n{printed.rstrip()}\n```"

    def first_run(self) -> str:
        """What `acb compare` prints: the block in the README, which a test holds to the command."""
        readme = (Path(__file__).parents[2] / "README.md").read_text()
        return re.search(r"^```text\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[1].rstrip()

    def experiment(self, name: str) -> str:
        """A script of docs/results/myths and what it printed."""
        script = RESULTS / "myths" / f"{name}.py"
        shown = f'```python title="docs/results/myths/{name}.py"\n{script.read_text()}```'
        facts, _, printed = script.with_suffix(".txt").read_text().partition("\n")
        return f"{shown}\n\n```text\n{printed}```\n\n{widgets.source([facts])}"

    # --- decode steps and whole runs ---

    def bars(self, *which: str) -> str:
        """Measured decode steps as bars, each "WORKLOAD CHAPTER"."""
        groups = {}
        for load, chapter in (each.split() for each in which):
            step = self.step(load, chapter)
            parts = {name.replace("_", " "): 1e3 * getattr(step, name) for name in PARTS}
            groups.setdefault(f"<code>{load}</code>: {LOADS[load]}", {})[f"chapter {chapter[2]}"] = parts
        sources = self.source("h200.json", *dict.fromkeys(each.split()[0] for each in which))
        return widgets.bars(groups, "ms per decode step", "step") + sources

    def roofline(self) -> str:
        """Decode steps as bars, as they are and compiled, each as a multiple of its own floor: all are on one scale."""
        groups, parts = {}, {}
        for row in rows("roofline.json", "roofline"):
            if row["kernels of"] != "the step":  # which comes behind its parts
                parts[row["kernels of"]] = row["ms"]
                continue
            floor, label = row["floor, ms"], "compiled" if row["compiled"] == "yes" else "as it is"
            load = f"<code>{row['workload']}</code>: {row['rows']} rows of {row['context']:,} positions"
            multiples = {part: ms / floor for part, ms in parts.items()}
            groups.setdefault(f"{load}, floor {floor:.2f} ms", {})[label], parts = multiples, {}
        bars = widgets.bars(groups, "times the floor (the line)", "step", 1.0)
        return bars + self.source("roofline.json", "roofline")

    def runs(self) -> str:
        """Whole runs, prompts included: new tokens a second, and the share of tokens that are chapter 1's."""
        heads = ["", *(f"`{load}`: {what}" for load in LOADS for what in ("tokens/s", "speedup", "chapter 1's tokens"))]
        lines = []
        for stem in chapter_paths():
            cells = [stem]
            for load in LOADS:
                rate, first = (self.run(load, chapter).tokens_per_second for chapter in (stem, "ch1"))
                same = self._stored("h200.json", load, stem)["same_tokens"]
                cells += [f"{rate:,.0f}", f"{rate / first:.2f}", f"{100 * same:.1f} %"]
            lines.append(cells)
        return f"{markdown(heads, lines)}\n\n{self.source('h200.json', *LOADS)}"

    def spread(self) -> str:
        """A decode step of three runs on one machine, shortest to longest, and of another machine of the same kind."""
        heads = ["ms per decode step", *(f"`{load}`{what}" for load in LOADS for what in ("", ", another H200"))]
        lines = []
        for stem in chapter_paths():
            cells = [stem]
            for load in LOADS:
                steps = self._stored("h200.json", load, stem)["run_steps"]
                cells += [f"{in_ms(min(steps))} to {in_ms(max(steps))}", in_ms(self.step(load, stem, OTHER).step)]
            lines.append(cells)
        return f"{markdown(heads, lines)}\n\n{self.source('h200.json', *LOADS)}{self.source(OTHER, *LOADS)}"

    def predictions(self) -> str:
        """Measured and simulated steps, part by part, and how far off the step or its worst part is."""
        heads = ["measured, simulated, ms", "", "step", *(part.replace("_", " ") for part in PARTS), "furthest off"]
        lines = []
        for load in LOADS:
            for stem in chapter_paths():
                real, guess = self.step(load, stem), self.step(load, stem, "simulated.json")
                both = zip(*(result_table.parts_in_ms(each.breakdown) for each in (real, guess)), strict=True)
                off = f"{100 * guess.breakdown.distance(real.breakdown):.1f} %"
                lines.append([f"`{load}`", stem, *map(",&nbsp;".join, both), off])
        sources = self.source("h200.json", *LOADS) + self.source("simulated.json", *LOADS)
        return f"{markdown(heads, lines, [False, False] + [True] * (len(heads) - 2))}\n\n{sources}"

    def published_run(self) -> str:
        """Hugging Face's run, transformers on the same shape, and this engine with as much host work: seconds."""
        theirs = {row["asynchronous"]: row["seconds"] for row in rows("peer.json", "whole")}
        slow, fast = (seconds for seconds, _ in result_table.PUBLISHED.values())
        files = ("published.json", "h200.json")
        both = ([self.run("headline", chapter, file).seconds for chapter in ("ch1", "ch6")] for file in files)
        (slower, faster), (plain, graphs) = both
        lines = [
            (what, f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}", f"{100 * (1 - two / one):.1f} %")
            for what, one, two in (
                ("published: transformers, H100", slow, fast),
                ("transformers, measured here (drawn from its steps)", theirs["no"], theirs["yes"]),
                ("this engine, graphs in both, 8.8 ms of host work in each step", slower, faster),
                ("this engine as it is, chapters 1 and 6: graphs only in the second", plain, graphs),
            )
        ]
        heads = ("32 requests, 8,192 new tokens each, 8B", "synchronous, s", "asynchronous, s", "speedup", "saved")
        sources = self.source("peer.json", "whole") + "".join(self.source(file, "headline") for file in files)
        return f"{markdown(heads, lines)}\n\n{sources}"

    def reports(self) -> str:
        """What others have published of asynchrony in their engines; read there, not measured here."""
        lines = []
        for each in stored("reports.json"):
            gains = {load: f"{100 * (gain - 1):+.1f} %".replace("+0.0", "0.0") for load, gain in each["gains"].items()}
            changes = ", ".join(f"{share} ({load})" for load, share in gains.items())
            said = "; ".join(filter(None, (changes, each["said"])))
            source = f"[{each['source']}]({each['url']})"
            lines.append((each["engine"], each["model"], each["gpu"] or "not said", said, source))
        heads = ("engine", "model", "GPU", "gained or lost, by load", "source")
        return markdown(heads, lines, [False] * len(heads))

    # --- lines taken away ---

    def without(self, chapter: str, *begins: str, sanitizer: bool = False) -> str:
        """What became of a chapter without each line that has one of these in it: on the simulator, on the GPU.

        Args:
            begins: none: every line.
            sanitizer: whether what torch's CUDA sanitizer said is told, too.
        """
        lines = []
        for simulated, real in self.mutations(chapter):
            if not begins or (any(text in real["without"] for text in begins) and "with " not in real["without"]):
                counts = ", ".join(str(real[f"wrong in run {run}"]) for run in (1, 2, 3))
                seen = f'<abbr title="{real["error"].split("; ")[0]}">an error</abbr>' if real["error"] else counts
                said = [real["sanitizer"] or "nothing"] if sanitizer else []
                lines.append([str(real["line"]), f"`{real['without']}`", found(simulated), seen, *said])
        heads = ["line", "without", "simulated", "H200: wrong of 200"] + ["CUDA sanitizer"] * sanitizer
        stem = chapter_path(chapter).stem
        sources = self.source("deletions.json", stem) + self.source("deletions_cuda.json", stem)
        return f"{markdown(heads, lines, [True] + [False] * (len(heads) - 1))}\n\n{sources}"

    def one_stream(self) -> str:
        """The mean bubble with three streams and with one in their place, chapter by chapter."""
        bubbles = {
            f"chapter {stem[2]}": [f"{simulated[f'bubble {how} it (us)']:.1f} us" for how in ("with", "without")]
            for stem in list(chapter_paths())[1:]
            for simulated, _ in self.mutations(stem)
            if "cuda.Stream()" in simulated["without"]
        }
        three, one = zip(*bubbles.values(), strict=True)
        heads = ["mean bubble, simulated `wide`", *bubbles]
        table = markdown(heads, [["three streams", *three], ["one stream", *one]])
        return f"{table}\n\n{self.source('deletions.json', 'ch5_carry_over')}"

    def mutations(self, chapter: str) -> list[tuple[dict, dict]]:
        """Each line that orders anything, taken away by itself: what the simulator found, and what a GPU showed.

        Raises:
            ValueError: the two tables are not of the same lines.
        """
        stem = chapter_path(chapter).stem
        here, (_, *there) = rows("deletions.json", stem), rows("deletions_cuda.json", stem)
        if [(row["line"], row["without"]) for row in here] != [(row["line"], row["without"]) for row in there]:
            raise ValueError(f"the stored tables of {stem} are not of the same lines")
        return list(zip(here, there, strict=True))

    # --- values ---

    def step(self, load: str, chapter: str, file: str = "h200.json") -> SimpleNamespace:
        """A stored decode step, in seconds: its `breakdown`, the parts of that, step, on_gpu (K) and launching."""
        row = self._stored(file, load, chapter)
        parts = result_table.stored_breakdown(row["breakdown"])
        launching = row["law"]["launching"] if "law" in row else row["breakdown"]["launching"]
        more = {"step": parts.step, "on_gpu": parts.on_gpu, "launching": launching, "breakdown": parts}
        return SimpleNamespace(**vars(parts) | more)

    def run(self, load: str, chapter: str, file: str = "h200.json") -> metrics.Metrics:
        """Stored figures of a whole run: seconds, tokens_per_second and so on."""
        return metrics.Metrics(**self._stored(file, load, chapter)["figures"])

    def law(self, load: str, decodes: str = "as graphs", host_work: float = 0.0) -> dict:
        """A row of the stored law of overlap, in ms.

        Args:
            decodes: "as graphs" or "one by one".
            host_work: milliseconds added to a step.
        """
        wanted = (load, decodes, host_work)
        return next(
            row for row in rows("law.json", "law") if (row["workload"], row["decodes"], row["host work"]) == wanted
        )

    def _stored(self, file: str, load: str, chapter: str) -> dict:
        stem = chapter_path(chapter).stem
        return next(row for row in stored(file)[load]["chapters"] if row["chapter"] == stem)


def found(simulated: dict) -> str:
    """What the simulator found without a line."""
    if harm := [text for name, text in HARM.items() if simulated[name] is not None]:
        return ", ".join(harm)
    before, after = (simulated[f"bubble {how} it (us)"] for how in ("with", "without"))
    return f"slow: bubbles of {before:.0f} us become {after:.0f} us" if after - before > 1 else "nothing"
