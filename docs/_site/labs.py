"""The labs as the site shows them: lists, and terminal sessions that tests/docs/test_labs.py holds to the commands."""

from pathlib import Path

from acb_minimal.course.labs.lab import LABS
from acb_minimal.run.engines import chapter_path

SESSIONS = Path(__file__).parents[1] / "results" / "sessions"


def session(name: str) -> str:
    """Commands, and what they print in a terminal of 88 columns."""
    return f"```text\n{(SESSIONS / f'{name}.txt').read_text()}```"


def table(kind: str) -> str:
    """The labs of a kind: name, what it is about, and the chapter that they have to be as fast as."""
    lines = ["| lab | what it is about | as fast as |", "| --- | --- | --- |"]
    for lab in LABS.values():
        if lab.kind == kind:
            link = lab.goal and f"[chapter {lab.goal[2:]}](chapters/{chapter_path(lab.goal).stem}.md)"
            goal = link or "its solution"
            lines.append(f"| `{lab.name}` | {lab.title} | {goal} |")
    return "\n".join(lines)


def bugs() -> str:
    """What the bugs of the hunts are called, and where engines in use have had them. Folded: it gives them away."""
    found = [
        f"    | `{lab.name}` | {lab.found} | "
        f"{', '.join(f'[{thread}]({link})' for thread, link in zip(lab.threads, lab.links, strict=True))} |"
        for lab in LABS.values()
        if lab.kind == "hunt"
    ]
    title = '??? failure "What the bugs are, and where they were seen: this gives them away"'
    return "\n".join([title, "", "    | hunt | the bug | seen in |", "    | --- | --- | --- |", *found])
