"""The one exception for input that cannot be served; its message is a single line for the person who gave it."""


class InputError(ValueError):
    """Names the bad value and what is allowed. Raised before any GPU work; the `acb` command prints it and exits."""
