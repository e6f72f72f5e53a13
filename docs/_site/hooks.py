"""What MkDocs calls when the site is built: adds files that are generated, and fills in the pages.

Pages are Jinja templates; what they may call are the methods of Page. Nothing measured is written in a page by hand: it
comes from docs/results, and a page that asks for what is not there does not build.
"""

from pathlib import Path

import explore
import figures
import jinja2
import notebooks
import reading
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from page import Page

from acb_minimal.run.engines import chapter_paths

ROOT = Path(__file__).parents[2]
templates = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is not in docs/: what is played, colours, and the notebooks with their pictures."""
    files.append(File.generated(config, "javascripts/explore-data.js", content=explore.data()))
    files.append(File.generated(config, "stylesheets/colours.css", content=figures.colours()))
    for stem in chapter_paths(None):
        path = ROOT / "chapters" / f"{stem}.ipynb"
        files.append(File.generated(config, f"chapters/{stem}.ipynb", abs_src_path=str(path)))
        for name, picture in notebooks.pictures(path).items():
            files.append(File.generated(config, f"figures/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    return templates.from_string(markdown).render(Page.names(page.file.src_uri), repository=config.repo_url)


def on_page_content(content: str, page, config: MkDocsConfig, files: Files) -> None:
    reading.note(page.file.src_uri, content)


def on_post_page(output: str, page, config: MkDocsConfig) -> str:
    return reading.filled(page.file.src_uri, figures.placed(output))
