# SPDX-License-Identifier: Apache-2.0
"""Which devices have which plan in asynchronous rounds, and since when each of them is overdue."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.served_models import ServedModel


@dataclass(slots=True)
class DeviceWork:
    """What one device was asked to do.

    round: of its plan. by_class: the work of each class of devices; after a restart the device's own class is known
    from its Hello. base: the model it starts from. planned_at: when it got the plan, in seconds; None: before a
    restart. overdue_at: from then on another device may be selected in its place; its update still counts.
    overdue_noted: whether the selector has learned that.
    """

    round: int
    by_class: tuple[Assignment, ...]
    base: ServedModel
    planned_at: float | None
    overdue_at: float
    overdue_noted: bool = False


class OpenWork:
    """The work that devices have in hand, by device id. working: devices that are not overdue."""

    def __init__(self) -> None:
        self.by_device: dict[str, DeviceWork] = {}
        self.working: set[str] = set()
        self._due: list[tuple[float, str]] = []  # a heap of overdue_at; it may still hold devices that have ended

    def __contains__(self, device: str) -> bool:
        return device in self.by_device

    def __iter__(self) -> Iterator[tuple[str, DeviceWork]]:
        return iter(list(self.by_device.items()))

    def __bool__(self) -> bool:
        return bool(self.by_device)

    def get(self, device: str) -> DeviceWork | None:
        """Return the device's work; None: it has none."""
        return self.by_device.get(device)

    def restore(self, device: str, work: DeviceWork) -> None:
        """Add work from before a restart; start() begins its time."""
        self.by_device[device] = work

    def start(self, device: str, work: DeviceWork) -> None:
        """Add a device that is at work until it is overdue."""
        self.by_device[device] = work
        self.working.add(device)
        if len(self._due) > 2 * len(self.working) + 100:
            self._due = [(self.by_device[d].overdue_at, d) for d in self.working - {device}]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (work.overdue_at, device))

    def end(self, device: str) -> DeviceWork:
        """Await nothing from a device any longer; return what it was asked to do."""
        self.working.discard(device)
        return self.by_device.pop(device)

    def clear(self) -> None:
        """Await nothing from any device any longer."""
        self.by_device.clear()
        self.working.clear()

    def expire(self, now: float) -> float | None:
        """Take overdue devices out of `working`; return the time of the next one. None: no device is working."""
        while self._due:
            at, device = self._due[0]
            if device in self.working and self.by_device[device].overdue_at == at:
                if at > now:
                    return at
                self.working.discard(device)
            heapq.heappop(self._due)
        return None

    def note_overdue(self, now: float) -> dict[str, float]:
        """Return the devices that became overdue since the last call, and the seconds since their plan."""
        overdue: dict[str, float] = {}
        for device, work in self.by_device.items():
            if work.overdue_at <= now and not work.overdue_noted and work.planned_at is not None:
                work.overdue_noted = True
                overdue[device] = now - work.planned_at
        return overdue
