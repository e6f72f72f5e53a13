"""The reference is complete: every module is in it, and whatever is public says what it is for."""

from collections.abc import Iterator
from pathlib import Path

import griffe
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sections(site) -> dict[str, str]:
    """What the reference says, by the name that it says it of."""
    pages = [BeautifulSoup(page.read_bytes(), "html.parser") for page in site.folder.glob("reference/*/index.html")]
    headings = [heading for page in pages for heading in page.select(".doc-heading[id]")]
    return {heading["id"]: heading.find_next_sibling(class_="doc-contents").get_text() for heading in headings}


def public(module: griffe.Module) -> Iterator[griffe.Object]:
    """Its modules with anything in them, and their classes and functions; not the `acb` command, which has --help."""
    for member in module.members.values():
        if member.is_alias or not member.is_public or member.path == "acb_minimal.cli":
            continue
        if member.is_class or member.is_function or (member.is_module and member.source.strip()):
            yield member
        if member.is_module:
            yield from public(member)


def test_every_module_class_and_function_is_there(sections):
    package = griffe.load("acb_minimal", search_paths=[str(ROOT)])
    missing = [
        member.path
        for member in public(package)
        if member.path not in sections and member.name != "main"  # of a program: its module says what it is for
    ]
    assert not missing, f"not in docs/reference, or without a docstring: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acb_minimal.slot.Inputs", "page * page_size + offset"),
        ("acb_minimal.slot.Inputs", "query_starts[r] to query_starts[r + 1] - 1"),
        ("acb_minimal.attention.paged_attention", "head_dim ** -0.5"),
        ("acb_minimal.trace.idle.read", '{"traceEvents": list}'),
        ("acb_minimal.trace.law", "L + H <= K"),
    ],
)
def test_signs_of_a_formula_are_no_markup(sections, name, said):
    assert said in " ".join(sections[name].split())
