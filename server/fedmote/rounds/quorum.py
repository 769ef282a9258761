# SPDX-License-Identifier: Apache-2.0
"""Whether enough devices are online to start a round."""

from __future__ import annotations

from collections.abc import Callable

CALL_S = (5.0, 60.0)  # seconds between two requests for Hello: at first, and at most


class Quorum:
    """Waits for `devices` devices. While fewer are online it asks all for Hello: an idle device sends nothing by
    itself.

    ask_for_hello: broadcasts the request. It is repeated at intervals that double from 5 s to 60 s.
    """

    def __init__(self, devices: int, ask_for_hello: Callable[[], None]) -> None:
        self.devices, self.ask_for_hello = devices, ask_for_hello
        self._next_call: float | None = None
        self._interval_s = CALL_S[0]

    def is_met(self, online: int, now: float) -> bool:
        """Return whether enough devices are online to start a round. If not, ask all devices for Hello when due."""
        if online >= self.devices:
            self._next_call = None
            return True
        if self._next_call is None:
            self._interval_s = CALL_S[0]
            self._next_call = now + self._interval_s
        elif now >= self._next_call:
            self.ask_for_hello()
            self._interval_s = min(2 * self._interval_s, CALL_S[1])
            self._next_call = now + self._interval_s
        return False
