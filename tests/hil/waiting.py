# SPDX-License-Identifier: Apache-2.0
"""Waiting for conditions that nobody announces."""

from __future__ import annotations

import threading
from collections.abc import Callable


def until(what: Callable[[], bool]) -> None:
    """Wait for it."""
    tick = threading.Event()
    for _ in range(2000):
        if what():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen")
