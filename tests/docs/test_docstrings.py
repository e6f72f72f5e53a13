"""The reference says what the docstrings say: their Markdown, rendered as the site does it and held to the code."""

import dataclasses
import html
import inspect
import re
import sys
from functools import cache
from pathlib import Path

import griffe
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown import Markdown
from mkdocs.config import load_config

from acb_minimal import attention, attention_triton
from acb_minimal.check import deletions_cuda
from acb_minimal.check.schedules import Verdict
from acb_minimal.measure.figures import Breakdown
from acb_minimal.request import Row
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim import queues
from acb_minimal.sim.costs import Shape
from acb_minimal.slot import Inputs
from acb_minimal.trace import torch_profiler
from acb_minimal.trace.spans import Span

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_site"))
import docstrings  # noqa: E402


@cache
def converter() -> Markdown:
    """Markdown as the site has it."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    return Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs)


@cache
def package() -> griffe.Module:
    extensions = griffe.load_extensions(docstrings.NamedTuples)
    return griffe.load("acb_minimal", search_paths=[str(ROOT)], extensions=extensions)


def rendered(docstring: str) -> str:
    """The HTML of a docstring."""
    return converter().reset().convert(docstrings.markdown(docstring))


def seen(text: str) -> str:
    """What a reader sees of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def words(text: str) -> list[str]:
    return text.replace("`", "").replace("*", "").split()


def listed(docstring: str) -> list[tuple[str, str]]:
    """The entries of the definition lists in it: names, text."""
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", rendered(docstring), re.DOTALL)
    return [(seen(term), seen(text)) for term, text in found]


def names(documented) -> list[str]:
    return [name for term, _ in listed(inspect.getdoc(documented)) for name in term.split(", ")]


def everything(module: griffe.Module):
    for member in module.members.values():
        if not member.is_alias:
            yield member
            yield from everything(member) if member.is_module or member.is_class else ()


def docstrings_of_the_package() -> dict[str, str]:
    return {member.path: member.docstring.value for member in everything(package()) if member.docstring}


def test_a_row_becomes_an_entry():
    assert names(Breakdown) == [field.name for field in dataclasses.fields(Breakdown)]
    assert dict(listed(inspect.getdoc(Breakdown)))["kernels"] == "with a kernel running"
    assert "</dl>\n<p>The last three add up" in rendered(inspect.getdoc(Breakdown))


def test_a_row_goes_on_in_the_next_line():
    assert names(Span) == [field.name for field in dataclasses.fields(Span) if field.name not in ("start", "end")]
    assert "wait, update; on the device: upload, forward" in dict(listed(inspect.getdoc(Span)))["name"]


def test_a_column_in_the_middle_is_code():
    assert names(Inputs) == list(Inputs._fields)
    assert dict(listed(inspect.getdoc(Inputs)))["page_table"].startswith("[rows, pages] each row's pages")
    assert "<code>[rows, pages]</code> each" in rendered(inspect.getdoc(Inputs))


@pytest.mark.parametrize("documented", [attention.paged_attention, Scheduler, Session, Verdict])
def test_several_names_can_share_a_row(documented):
    """On one line or on two; out of line if they are long."""
    assert names(documented) == [name for name in inspect.signature(documented).parameters if name != "self"]
    assert "<code>" in rendered(inspect.getdoc(documented)).partition("<dt>")[2][:10]


def test_text_right_after_a_block_is_not_part_of_it():
    text = inspect.getdoc(Checkpoint)
    assert "max_positions" in names(Checkpoint)
    assert rendered(text).endswith(
        "</dl>\n<p>Raises InputError when there is no such model or its attention cannot be replaced.</p>"
    )


def test_a_block_that_is_indented_is_a_block():
    assert sorted(names(queues)) == sorted(queues.POLICIES)
    assert names(torch_profiler) == ["device gap", "bubble", "launch gap"]
    assert "<dt>device gap</dt>" in rendered(torch_profiler.__doc__)  # words, not code


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (attention, "    torch.ops.acb.paged_attention(query, key"),
        (attention_triton, "    merge_kernel    decode only"),
        (deletions_cuda, "    python -m acb_minimal.deletions_cuda CHAPTER LINE    one such run"),
    ],
)
def test_what_is_indented_and_has_other_columns_stays_code(module, line):
    assert line in docstrings.markdown(module.__doc__)
    assert " ".join(line.split()) in seen(rendered(module.__doc__).partition("<code>")[2].partition("</code>")[0])
    assert names(module) == []


def test_a_reader_of_the_reference_sees_every_word_of_the_docstrings():
    """The marks of code and emphasis are all that may go; and columns are not run together into a paragraph."""
    for path, docstring in docstrings_of_the_package().items():
        page = rendered(docstring)
        assert sorted(words(seen(page))) == sorted(words(docstring)), path
        assert not re.search(r"<p>[^<]*\S {2,}\S", page), path


WORD = st.text("ab1_<>&[]{}()\\#+-=.!:|~?", min_size=1, max_size=8) | st.sampled_from(["*", "**", "***", "int", "0"])
SENTENCE = st.lists(WORD, min_size=1, max_size=12).map(" ".join)
NAME = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


@given(SENTENCE)
def test_a_sentence_is_shown_as_it_is_written(sentence):
    assert seen(rendered(sentence)) == sentence


@given(st.lists(st.tuples(NAME, SENTENCE), min_size=1, max_size=5), st.integers(0, 1), st.booleans(), st.data())
def test_a_block_is_shown_as_it_is_written(rows, margin, followed, data):
    width = max(len(name) for name, _ in rows) + 2
    lines = []
    for name, text in rows:
        pieces = text.split(" ")
        cut = data.draw(st.integers(1, len(pieces)))  # where the text goes on in the next line
        lines.append(f"{name:{width}}{' '.join(pieces[:cut])}")
        lines += [f"{'':{width}}{' '.join(pieces[cut:])}"] if cut < len(pieces) else []
    docstring = "A block.\n\n" + "\n".join(4 * margin * " " + line for line in lines)
    if followed:
        docstring += f"\n{4 * margin * ' '}What follows."
    assert listed(docstring) == [(name, text) for name, text in rows]
    assert rendered(docstring).endswith("<p>What follows.</p>" if followed else "</dl>")


def test_meant_markup_stays():
    assert html.unescape(rendered("It is *now*, `x_y * 2` and **never** again: a*b*c, 2 * 3 * 4, **options.")) == (
        "<p>It is <em>now</em>, <code>x_y * 2</code> and <strong>never</strong> again: a*b*c, 2 * 3 * 4, **options.</p>"
    )


@pytest.mark.parametrize("made", [Row, Shape])
def test_named_tuples_have_a_signature(made):
    init = package()[f"{made.__module__.removeprefix('acb_minimal.')}.{made.__name__}.__init__"]
    shown = {each.name: each.default and str(each.default) for each in init.parameters}
    defaults = {name: str(value) for name, value in made._field_defaults.items()}
    assert shown == {"self": None} | dict.fromkeys(made._fields) | defaults


def test_the_reference_has_every_file():
    files = {path.stem for path in (ROOT / "acb_minimal").glob("*.py") if not path.stem.startswith(("__", "cli"))}
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    assert files - set(re.findall(r"^::: acb_minimal\.(\w+)$", pages, re.MULTILINE)) == set()
