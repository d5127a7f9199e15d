"""One reading for all who look at nearly the same moment, and a budget of time for each of them.

A reading that takes longer than somebody may wait goes on behind his back: he is told that he knows nothing, and who
looks next gets what it brings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tmi_ops.errors import StoreError

_T = TypeVar("_T")


@dataclass
class SharedReading(Generic[_T]):
    """What was read last in this process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reading: Future[_T] | None = None
    _done_at: float = 0.0
    _of: str = ""

    def recent(self, of: str, read: Callable[[], _T], *, shared_for_s: float, budget_s: float) -> _T:
        """What `read` gives, or gave not longer than `shared_for_s` ago.

        Args:
            of: what is read; a reading of something else is no answer.

        Raises:
            StoreError: it was not read within `budget_s` seconds.
            OpsError: as `read`.
        """
        with self._lock:
            reading = self._reading
            if reading is None or self._of != of or self._is_over(reading, shared_for_s):
                reading = self._reading = Future()
                self._of = of
                threading.Thread(target=self._read, args=(reading, read), name="reading", daemon=True).start()
        try:
            return reading.result(timeout=budget_s)
        except TimeoutError:
            if reading.done():
                raise
            raise StoreError(
                f"What is recoverable could not be read within {budget_s:.0f} s, so it is unknown.",
                detail="The reading goes on; the next look takes what it brings.",
                hint="see how long it takes: `time tmi-ops status`; then what the store and the database do: "
                "`tmi-ops doctor`",
                transient=True,
            ) from None

    def _is_over(self, reading: Future[_T], shared_for_s: float) -> bool:
        if not reading.done():
            return False
        return reading.exception() is not None or time.monotonic() - self._done_at > shared_for_s

    def _read(self, reading: Future[_T], read: Callable[[], _T]) -> None:
        try:
            value = read()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._done_at = time.monotonic()
            reading.set_exception(error)
        else:
            self._done_at = time.monotonic()
            reading.set_result(value)
