# SPDX-License-Identifier: Apache-2.0
"""What the fleet asks of the rounds and of the tasks, as protocols, so that it imports neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fedmote.learning.update import Update


@dataclass(frozen=True, slots=True)
class Assignment:
    """Work that a device was given and that is still awaited of it.

    round: that its plan names. base_version, base_crc32: of the model that it starts from, as the wire names them.
    plan: the message. slot_granted: whether that grants a slot.
    """

    round: int
    base_version: int
    base_crc32: int
    plan: bytes
    slot_granted: bool


class Work(Protocol):
    """What a session asks of the round."""

    @property
    def chunk_elements(self) -> int:
        """Elements of an update's chunk."""
        ...

    @property
    def encodings(self) -> int:
        """Mask of what the plan lets a device send."""
        ...

    def open_round(self, device: str) -> int:
        """Return the round whose work is not over for the device: it goes on with a plan or an update of that one."""
        ...

    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""
        ...

    def may_plan(self, device: str, round: int) -> bool:
        """Whether the device may yet be asked for an update of that round."""
        ...

    @property
    def closing_notice(self) -> bytes | None:
        """The notice for a device that was away when all were told."""
        ...

    def folded(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update of that round if it was folded and not committed yet."""
        ...

    def committed(self, device: str, round: int) -> int | None:
        """Return the model version with which the device's work of that round came to its end."""
        ...

    def take(self, update: Update, crc32: int) -> int | None:
        """Fold an update. None: done; otherwise the RefusalReason."""
        ...

    def came(self, device: str) -> None:
        """The device said Hello, or offers an update that nobody awaits but that may count."""
        ...

    def gone(self, device: str) -> None:
        """The device's link broke."""
        ...

    def withdrew(self, device: str, round: int) -> None:
        """The device will not do that round's work."""
        ...

    def come_back_s(self, device: str) -> float:
        """Return for how long a device that says Hello need not expect a plan."""
        ...

    def chunk(self, version: int, index: int) -> bytes | None:
        """Return a ModelChunk message of a model that an assignment starts from."""
        ...


class TaskDesk(Protocol):
    """What a session asks of the tasks besides fit."""

    def plan(self, device: str) -> bytes | None:
        """Return the plan that the device is to have now; None: none."""
        ...

    def result(self, device: str, name: str, body: Any) -> None:
        """Take an Evaluation or Answer."""
        ...

    def withdrew(self, device: str, round: int) -> None:
        """The device will not do that round's work."""
        ...
