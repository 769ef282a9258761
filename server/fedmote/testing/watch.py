# SPDX-License-Identifier: Apache-2.0
"""Wait for changes by other threads, and raise their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watch:
    """A condition that threads notify. error: what a thread raised; it is raised where a test waits."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._changed = threading.Condition()

    def notify(self) -> None:
        """Wake the waiting tests, which check their condition again."""
        with self._changed:
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Record an exception of a thread."""
        self.error = error
        self.notify()

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a change after which `done` returns True; return False after the timeout."""
        with self._changed:
            met = self._changed.wait_for(lambda: done() or self.error is not None, timeout_s)
        if self.error is not None:
            raise self.error
        return met
