"""What other teams' own switches for asynchronous scheduling are worth on an H200, and what is predicted of each.

    python docs/results/switches.py         # needs no GPU: puts together mini_sglang.json, peer.json and predicted.json

Writes switches.json. Of mini-sglang, what is predicted is the law of overlap for the synchronous loop's own K, L and H,
measured without a profiler; of transformers, the bracket of `acb idle` for a trace of the synchronous run.
"""

import json
from pathlib import Path
from statistics import median

from acb_minimal.measure.result_table import ResultTable, load

RESULTS = Path(__file__).parent
HEADS = {"engine": "", "model": "", "rows": ",d", "synchronous, ms": ".2f", "asynchronous, ms": ".2f"}
HEADS |= {"speedup": ".2f", "predicted": ""}
MODELS = {"qwen3-8b": "Qwen3-8B", "llama-3.2-1b": "Llama-1B"}


def main() -> None:
    stored, rows = json.loads((RESULTS / "mini_sglang.json").read_text()), []
    for model, name in MODELS.items():
        for point in stored[model]["points"]:
            steps = [median(run["step"] for run in point[loop]) for loop in ("normal", "overlap")]
            speedups = steps[0] / steps[1], f"{point['law']['speedup']:.2f}"
            rows.append(["mini-sglang", name, point["rows"], *steps, *speedups])
    peer, predicted = load(RESULTS / "peer.json")["steps"], load(RESULTS / "predicted.json")["by_profiler"]
    synchronous, asynchronous = (found[3] for found in peer.rows[:2])
    predicted = predicted.rows[0][list(predicted.columns).index("speedup predicted")]
    rows.append(["transformers", "Llama-8B", 32, synchronous, asynchronous, synchronous / asynchronous, predicted])
    dates = sorted({peer.environment["date"], *(each["environment"]["date"] for each in stored.values())})
    note = (
        "Medians of decode steps: mini-sglang 20fcd7f with prompts of 1,024 tokens and 160 new ones, three runs of "
        "each in turns; transformers' `generate_batch` with prompts of 128. Random weights, CUDA graphs."
    )
    commands = [stored["qwen3-8b"]["command"], stored["llama-3.2-1b"]["command"], peer.command]
    environment = peer.environment | {"date": " and ".join(dates)}
    found = ResultTable("Other teams' switches", HEADS, rows, note, environment, "`, `".join(commands))
    found.save(RESULTS / "switches.json", "switches")


if __name__ == "__main__":
    main()
