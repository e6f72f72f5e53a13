"""The picture that the README opens with, as a file: `python docs/_site/opening.py` draws it anew."""

from pathlib import Path

from course import Course

from acb_minimal.pictures.theme import DARK, LIGHT

FILE = Path(__file__).parents[1] / "opening.svg"
LEFT, WIDE, TALL, NEXT = 84, 800, 44, 54


def drawn() -> str:
    """Home's first picture as SVG, light or dark by the reader's browser."""
    point, lanes, span = Course().opening_lanes()
    made = []
    for number, (name, lane) in enumerate(lanes.items()):
        y, x = 8 + NEXT * number, float(LEFT)
        made.append(f'<text x="{LEFT - 10}" y="{y + TALL / 2 + 5}" text-anchor="end">{name}</text>')
        for kind, size, text in lane:
            wide = size / span * (WIDE - LEFT)
            made.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{TALL}"/>')
            style = f'class="in" x="{x + wide / 2:.1f}" y="{y + TALL / 2 + 5}" text-anchor="middle"'
            made.append(f"<text {style}>{text}</text>" if text else "")
            x += wide
    told = f"On an NVIDIA H200, chapter 5 runs {point['gain']:.2f} times as many decode steps in the same time."
    colours = [
        f".kernels {{ fill: {theme.kernels} }} .bubbles {{ fill: {theme.bubbles} }} text {{ fill: {theme.ink} }} "
        f".in {{ fill: {theme.page} }}"
        for theme in (LIGHT, DARK)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {16 + 2 * NEXT - (NEXT - TALL)}" role="img">\n'
        f"<title>{told}</title>\n<style>text {{ font: 14px sans-serif }} .n0 {{ opacity: .85 }}\n{colours[0]}\n"
        f"@media (prefers-color-scheme: dark) {{ {colours[1]} }}</style>\n"
        + "\n".join(filter(None, made))
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    FILE.write_text(drawn())
