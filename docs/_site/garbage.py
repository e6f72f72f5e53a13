"""Collects no garbage while the site is built: a collection walks all of torch and transformers, and finds little."""

import gc

gc.disable()  # before hooks.py is loaded


def on_serve(server, **_) -> None:
    """The site will be built again and again."""
    gc.enable()
