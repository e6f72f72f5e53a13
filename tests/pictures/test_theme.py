"""What all pictures share: colours that can be told apart, and nothing left behind."""

import subprocess
import sys
from functools import partial

from matplotlib.colors import to_rgb
from pictures.drawn import both_themes, contrast, lightness
from pictures.samples import ROWS, made

from acb_minimal.pictures.breakdown import breakdown
from acb_minimal.pictures.theme import DARK
from acb_minimal.pictures.timeline import timeline


@both_themes
def test_colours_stand_out_from_the_page_and_slots_from_each_other(theme):
    assert (lightness(theme.page) < 0.05) == (theme is DARK)
    for figure in (draw(theme=theme) for draw in (partial(timeline, made(), 0, 2), partial(breakdown, ROWS))):
        assert to_rgb(figure.get_facecolor()) == to_rgb(theme.page)
        assert figure.get_facecolor()[3] == 1  # opaque
        for text in figure.texts + [text for axes in figure.axes for text in axes.get_yticklabels()]:
            assert contrast(text.get_color(), theme.page) >= 4.5, text
        for axes in figure.axes:
            assert contrast(axes.get_xticklabels()[0].get_color(), theme.page) >= 4.5
            assert all(contrast(line.get_color(), theme.page) >= 3 for line in axes.get_lines())
    for ink in (theme.host, *theme.slots):
        assert contrast(ink.text, ink.fill) >= 4.5
        assert contrast(theme.ink, ink.tint) >= 4.5
    a, b = theme.slots
    assert contrast(a.fill, b.fill) >= 1.8  # in grey they are a dark and a light one
    assert contrast(theme.host.fill, a.fill) >= 1.5 <= contrast(theme.host.fill, b.fill)
    assert min(contrast(color, theme.page) for color in (theme.kernels, theme.bubbles)) >= 3


def test_drawing_leaves_nothing_behind_in_pyplot():
    code = (
        "import sys; from acb_minimal.pictures.timeline import timeline; from acb_minimal.trace.spans import Trace;"
        "trace = Trace('gpu');"
        "trace.add('compute', 'forward', 0, 1, 0, 'A'); timeline(trace, 0, 0).savefig(sys.stdout.buffer);"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")
