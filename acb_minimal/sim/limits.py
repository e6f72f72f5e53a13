"""What the simulator does not know: a limit of its own, no fault of who asks."""


class Limit(Exception):
    """Something that a GPU may do, and the simulator cannot."""

    def __init__(self, what: str):
        super().__init__(f"{what}; that is a limit of the simulator")


class Unknown(Limit, AttributeError):
    """A name that torch.cuda may have."""

    def __init__(self, name: str):
        super().__init__(f"the simulator has no torch.cuda.{name}")
