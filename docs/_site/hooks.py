"""What MkDocs calls when the site is built: adds files that are generated, and fills in the pages.

Pages are Jinja templates; what they may call are the methods of Page. Nothing measured is written in a page by hand: it
comes from docs/results, and a page that asks for what is not there does not build.
"""

from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import explore
import figures
import jinja2
import notebooks
import reading
import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from page import Page

from acb_minimal.run.engines import chapter_paths

ROOT = Path(__file__).parents[2]
templates = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
PLAYED = "javascripts/explore-data.js"
recordings: list[Future] = []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is not in docs/: what is played, colours, and the notebooks with their pictures."""
    # The engines run beside the pages, on another core; torch's threads, for one, do not survive a fork.
    with_one_thread = ProcessPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    recordings.append(with_one_thread.submit(explore.data))
    with_one_thread.shutdown(wait=False)
    files.append(File.generated(config, PLAYED, content=""))
    files.append(File.generated(config, "stylesheets/colours.css", content=figures.colours()))
    for stem in chapter_paths(None):
        path = ROOT / "chapters" / f"{stem}.ipynb"
        files.append(File.generated(config, f"chapters/{stem}.ipynb", abs_src_path=str(path)))
        for name, picture in notebooks.pictures(path).items():
            files.append(File.generated(config, f"figures/{name}", content=picture))
    return files


def on_env(env: jinja2.Environment, config: MkDocsConfig, files: Files) -> None:
    """Takes the recordings in: files are written from here on."""
    files.get_file_from_path(PLAYED).content_string = recordings.pop().result()


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    return templates.from_string(markdown).render(Page.names(page.file.src_uri), repository=config.repo_url)


def on_page_content(content: str, page, config: MkDocsConfig, files: Files) -> None:
    reading.note(page.file.src_uri, content)


def on_post_page(output: str, page, config: MkDocsConfig) -> str:
    return reading.filled(page.file.src_uri, figures.placed(output))
