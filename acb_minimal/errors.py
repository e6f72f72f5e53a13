"""What can be said in a single line: input that cannot be served, and an engine that does not do what engines do."""


class InputError(ValueError):
    """Names the bad value and what is allowed. Raised before any GPU work; the `acb` command prints it and exits."""


class EngineError(RuntimeError):
    """An engine has not yielded each request exactly once, when it was finished; or launched nothing for a batch."""


class RankError(RuntimeError):
    """A rank is gone, or does something else than the others; the message names it.

    Attributes:
        status: that the command is to end with.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status
