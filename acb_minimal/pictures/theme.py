"""What all pictures share: colours for light and dark pages, sizes, and text that knows how wide it is.

Colours are safe for colour-blind readers, and whatever they tell apart differs in lightness, hatch, marker or text as
well. Nothing goes through pyplot, so nothing is left behind.
"""

from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

WIDTH, NARROW = 9.0, 4.0  # inches: of a figure for a page, and for a phone
FONT = 8  # points: the smallest text
LINE = 11.0  # points that a line of text takes from top to bottom
PAD = 3.0  # points between a text and the ends of its bar
THINNEST = 1.5  # points: nothing is drawn narrower, however short it is


class Ink(NamedTuple):
    """The colours of a slot's bars.

    Attributes:
        fill: of the bars.
        text: of text on them.
        tint: of the part of them in which no kernel runs.
    """

    fill: str
    text: str
    tint: str


@dataclass(frozen=True)
class Theme:
    """The colours of a figure.

    Attributes:
        page: behind everything.
        ink: of text.
        faint: of text that says less.
        lane: behind the bars of a timeline, and of grid lines.
        host: of work that involves no slot.
        slots: the slots take turns with them.
        kernels: of the time with a kernel running.
        gaps: of launch gaps.
        bubbles: of bubbles.
        series: of lines, in order.
    """

    page: str
    ink: str
    faint: str
    lane: str
    host: Ink
    slots: tuple[Ink, Ink]
    kernels: str
    gaps: str
    bubbles: str
    series: tuple[str, str, str, str]

    def slot(self, letter: str | None) -> Ink:
        return self.host if letter is None else self.slots[(ord(letter) - ord("A")) % 2]

    def colours(self) -> dict[str, str]:
        """All of them, by names of their own."""
        inks = {"host": self.host, "a": self.slots[0], "b": self.slots[1]}
        found = {f"{name}-{part}": colour for name, ink in inks.items() for part, colour in ink._asdict().items()}
        found |= {f"series-{number}": colour for number, colour in enumerate(self.series)}
        return found | {name: colour for name, colour in vars(self).items() if isinstance(colour, str)}

    def styles(self) -> dict[str, dict]:
        """How the parts of a step and the host's waits are drawn."""
        return {
            "kernels": {"facecolor": self.kernels, "linewidth": 0},
            "kernel gaps": {"facecolor": self.gaps, "edgecolor": self.kernels, "hatch": ".....", "linewidth": 0.6},
            "launch gaps": {"facecolor": self.gaps, "edgecolor": self.kernels, "hatch": "/////", "linewidth": 0.6},
            "bubbles": {"facecolor": self.page, "edgecolor": self.bubbles, "hatch": "xxxxx", "linewidth": 0.6},
            "wait": {"facecolor": self.page, "edgecolor": self.faint, "hatch": "/////", "linewidth": 0.4},
        }


LIGHT = Theme(
    page="#ffffff",
    ink="#1c2128",
    faint="#5b6470",
    lane="#f1f3f5",
    host=Ink("#1c2128", "#ffffff", "#e3e6ea"),
    slots=(Ink("#2b72bd", "#ffffff", "#dbe8f5"), Ink("#eda720", "#1c2128", "#fdf1d8")),
    kernels="#1b7f6b",
    gaps="#d9ede8",
    bubbles="#c2255c",
    series=("#2166ac", "#b35900", "#1b7f6b", "#a3216b"),
)
DARK = Theme(
    page="#1e2129",
    ink="#e6e9ef",
    faint="#a3abb8",
    lane="#292d38",
    host=Ink("#e6e9ef", "#1c2128", "#3a404c"),
    slots=(Ink("#2b72bd", "#ffffff", "#23374f"), Ink("#f2b53c", "#1c2128", "#463b24")),
    kernels="#3aa790",
    gaps="#21403d",
    bubbles="#ff6b9d",
    series=("#6db3f2", "#f2a65a", "#4fc3a8", "#f28ab8"),
)


def write_title(figure: Figure, theme: Theme, title: str) -> None:
    """At the top left of a figure."""
    place = 0.15 / figure.get_figwidth(), 1 - 0.19 / figure.get_figheight()
    figure.text(*place, title, color=theme.ink, size=FONT + 2, weight="bold", va="center")


def bare_axes(figure: Figure, theme: Theme, left: float, bottom: float, width: float, height: float) -> Axes:
    """Bare axes, placed in inches."""
    wide, tall = figure.get_size_inches()
    axes = figure.add_axes((left / wide, bottom / tall, width / wide, height / tall), facecolor="none")
    axes.spines[:].set_visible(False)
    axes.tick_params("x", length=0, labelsize=FONT, labelcolor=theme.faint)
    axes.tick_params("y", length=0, labelsize=FONT, labelcolor=theme.ink)
    return axes


def text_width(text: str) -> float:
    """Points that a text of FONT or FONT + 1 takes at most."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=FONT + 1), ismath=False)[0]


def legible(style: dict, points: float) -> dict:
    """The style, or where it is too narrow for a hatch, the hatch's colour."""
    return style if points >= 4 or "hatch" not in style else {"facecolor": style["edgecolor"], "linewidth": 0}
