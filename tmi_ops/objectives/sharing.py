"""Shares one reading between callers at nearly the same time, with a time limit for each of them.

A reading that exceeds a caller's limit continues: that caller gets an error, and the next one gets the result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError

_T = TypeVar("_T")


@dataclass
class SharedReading(Generic[_T]):
    """The last reading of this process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reading: Future[_T] | None = None
    _done_at: float = 0.0
    _of: str = ""

    def recent(self, of: str, read: Callable[[], _T], *, shared_for_s: float, budget_s: float) -> _T:
        """The result of `read`, at most `shared_for_s` old.

        Args:
            of: what is read; a reading of something else is not shared.

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
                f"Recoverability could not be read within {budget_s:.0f} s, so it is unknown.",
                detail="The reading continues; the next tick uses its result.",
                hint="see how long it takes with `time tmi-ops status`, then check store and database with "
                "`tmi-ops doctor`",
                code=Code.READING_SLOW,
                transient=True,
            ) from None

    def _is_over(self, reading: Future[_T], shared_for_s: float) -> bool:
        if not reading.done():
            return False
        return reading.exception() is not None or time.monotonic() - self._done_at > shared_for_s

    def _read(self, reading: Future[_T], read: Callable[[], _T]) -> None:
        try:
            value = read()
        except BaseException as error:  # noqa: BLE001 - raised in the callers
            self._done_at = time.monotonic()
            reading.set_exception(error)
        else:
            self._done_at = time.monotonic()
            reading.set_result(value)
