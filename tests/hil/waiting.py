# SPDX-License-Identifier: Apache-2.0
"""Wait for conditions by asking again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WAIT_S = 120.0  # for what takes a second or two, unless others keep the machine busy


def until(what: Callable[[], bool]) -> None:
    """Wait until the condition is true."""
    tick, deadline = threading.Event(), time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        tick.wait(0.01)
