# SPDX-License-Identifier: Apache-2.0
"""How long a round whose goal is reached waits for the other devices, so that a silent one cannot hold it."""

from __future__ import annotations

from typing import Final

SHORTEST_S: Final = 0.5
FACTOR: Final = 4.0  # times as long as the goal took
UPLOADING: Final = 4.0  # times as long at most, while chunks arrive
MARGIN: Final = 1.5  # times as late as the device that was almost the latest
REMEMBERED: Final = 8  # devices


class Grace:
    """The time from the closing notice to the end of a round.

    It follows from how long the devices of the goal took, and from how late others came. One device alone teaches it
    nothing, because it may be lying.
    """

    def __init__(self) -> None:
        self._late: dict[str, float] = {}  # device -> seconds from the closing notice to its late offer

    def seconds(self, goal_s: float) -> float:
        """Return for how many seconds to wait. goal_s: how long the goal took."""
        late = sorted(self._late.values())
        learned = MARGIN * late[-2] if len(late) > 1 else 0.0
        return max(SHORTEST_S, FACTOR * goal_s, learned)

    def ends_at(self, started: float, closed: float, progressed: float) -> float:
        """Return when a round ends. closed: when its goal was reached. progressed: when the latest chunk arrived."""
        grace_s = self.seconds(closed - started)
        return min(max(closed, progressed) + grace_s, closed + UPLOADING * grace_s)

    def note_late(self, device: str, seconds: float) -> None:
        """Note that a device offered its update so many seconds after the closing notice, when its round was over."""
        self._late.pop(device, None)
        self._late[device] = seconds
        if len(self._late) > REMEMBERED:
            del self._late[next(iter(self._late))]
