"""What every chapter of the course shares. `generate` is the way in from Python, `acb` from the shell."""

__all__ = ["generate"]


def __getattr__(name: str):
    # Imported on first use: torch and transformers take seconds, and `acb --help` should not.
    if name == "generate":
        from .run.session import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
