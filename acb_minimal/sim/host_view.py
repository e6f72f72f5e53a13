"""The host's side of pinned memory, as an array that tells who touches it."""

from __future__ import annotations  # HostView is named in its own methods

import numpy as np

from .simulator import Observer


class HostView(np.ndarray):
    """A NumPy array over pinned memory whose reads and writes are told to an observer, wherever they come from.

    A view of it tells too; a result of its own does not matter, since the observer knows memory by its address. What is
    done behind NumPy's back, through np.asarray(view) say, is not seen.
    """

    observer: Observer | None = None

    @classmethod
    def of(cls, array: np.ndarray, observer: Observer) -> HostView:
        """The same memory as `array`."""
        view = array.view(cls)
        view.observer = observer
        return view

    def __array_finalize__(self, source: object) -> None:
        self.observer = getattr(source, "observer", None)

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if not self._is_view(found):  # an element or a copy
            self._touched(key, writes=False)
        return found

    def __setitem__(self, key, value) -> None:
        self._touched(key, writes=True)
        super().__setitem__(key, value.view(np.ndarray) if isinstance(value, HostView) else value)

    def __iter__(self):
        self._tell(self, writes=False)
        return iter(self.view(np.ndarray))

    def tolist(self) -> list:
        self._tell(self, writes=False)
        return super().tolist()

    def item(self, *place):
        self._tell(self, writes=False)
        return super().item(*place)

    def copy(self, order="C") -> np.ndarray:
        self._tell(self, writes=False)
        return self.view(np.ndarray).copy(order)

    def astype(self, *arguments, **named) -> np.ndarray:
        self._tell(self, writes=False)
        return self.view(np.ndarray).astype(*arguments, **named)

    def fill(self, value) -> None:
        self._tell(self, writes=True)
        super().fill(value)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **named):
        for each in inputs:
            if isinstance(each, HostView):
                each._tell(each, writes=False)
        for each in out or ():
            if isinstance(each, HostView):
                each._tell(each, writes=True)
        plain = [each.view(np.ndarray) if isinstance(each, HostView) else each for each in inputs]
        if out is not None:
            named["out"] = tuple(each.view(np.ndarray) if isinstance(each, HostView) else each for each in out)
        return getattr(ufunc, method)(*plain, **named)

    def _touched(self, key, writes: bool) -> None:
        """Tells of what `key` picks: the stretch that holds it, or everything if it picks here and there."""
        if isinstance(key, int | np.integer):
            key = slice(key, key + 1 or None)
        picked = super().__getitem__(key)
        self._tell(picked if self._is_view(picked) else self, writes)

    def _is_view(self, found: object) -> bool:
        return isinstance(found, np.ndarray) and (not found.size or np.may_share_memory(found, self))

    def _tell(self, array: np.ndarray, writes: bool) -> None:
        if self.observer is not None and array.size:
            self.observer.touched(array.view(np.ndarray), writes)
