# SPDX-License-Identifier: Apache-2.0
"""The devices of a synchronous round, and how far each of them is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Cohort:
    """The devices that one attempt at a round selected.

    selected: all of them, in the order of their plans. planned: the first of these, which were sent the plan.
    outstanding: devices that neither reported nor withdrew. holders: devices that had done the work before they were
    selected. withdrawn: devices that gave up; refused: those of them whose update was refused, so that their next one
    would be, too. dropped: devices whose link broke.
    """

    selected: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    outstanding: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    _planned: set[str] = field(default_factory=set)  # the same as `planned`: one message must not cost a list's length

    @classmethod
    def of(cls, holders: list[str], chosen: list[str]) -> Cohort:
        """Select devices that hold the round's update, and others."""
        selected = sorted(holders + chosen)
        return cls(selected, outstanding=set(selected), holders=set(holders))

    def __len__(self) -> int:
        return len(self.selected)

    @property
    def all_planned(self) -> bool:
        """Whether each selected device was sent the plan."""
        return len(self.planned) == len(self.selected)

    @property
    def unanswered(self) -> bool:
        """Whether devices have the plan, and none of them reported, withdrew or lost its link."""
        return bool(self.planned) and self.outstanding == set(self.selected) and not self.dropped

    @property
    def reported(self) -> int:
        """How many devices reported."""
        return len(self.selected) - len(self.outstanding) - len(self.withdrawn)

    def was_planned(self, device: str) -> bool:
        """Tell whether the device was sent the plan."""
        return device in self._planned

    def is_awaited(self, device: str) -> bool:
        """Tell whether the device was sent the plan and its update is still to come."""
        return device in self.outstanding and device in self._planned

    def is_known(self, device: str) -> bool:
        """Tell whether the device is awaited or about to be, or its update was refused."""
        return device in self.outstanding or device in self.refused

    def is_anyone_at_work(self) -> bool:
        """Tell whether any device was sent the plan and is still awaited."""
        return not self.outstanding.isdisjoint(self._planned)

    def plan(self, device: str) -> None:
        """Note that the device, the next of `selected`, is sent the plan."""
        self.planned.append(device)
        self._planned.add(device)

    def join(self, device: str) -> None:
        """Add a device that holds the round's update, although it was not selected."""
        self.selected.insert(len(self.planned), device)
        self.plan(device)
        self.holders.add(device)
        self.outstanding.add(device)

    def take_back(self, device: str) -> None:
        """Await a device again that withdrew, since it has done the work after all."""
        self.withdrawn.discard(device)
        self.outstanding.add(device)

    def withdraw(self, device: str) -> None:
        """Note that a device will not report."""
        self.outstanding.discard(device)
        self.withdrawn.add(device)

    def refuse(self, device: str) -> None:
        """Note that a device's update was refused."""
        self.withdraw(device)
        self.refused.add(device)

    def drop(self, device: str) -> None:
        """Note that a device's link broke, if it belongs to the cohort."""
        if device in self.outstanding or device in self._planned:
            self.dropped.add(device)

    def late(self, timed: set[str]) -> list[str]:
        """Return the devices that were sent the plan and are not done. timed: those whose time is known."""
        return sorted(set(self.planned) - self.withdrawn - self.holders - timed)
