# SPDX-License-Identifier: Apache-2.0
"""What the fleet asks of the rounds and of the tasks. They implement these classes, so the fleet imports neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fedmote.learning.update import Update
from fedmote.wire.Answer import Answer
from fedmote.wire.Evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class Assignment:
    """A plan that a device has, and whose update is still awaited.

    round: the round that the plan names. base_version, base_crc32: of the model to start from, as the wire names them.
    plan: the message. slot_granted: whether the plan grants a slot.
    """

    round: int
    base_version: int
    base_crc32: int
    plan: bytes
    slot_granted: bool


class Refusal(NamedTuple):
    """Why an update is refused. reason: a RefusalReason. detail: for people."""

    reason: int
    detail: str


class RoundCoordinator(ABC):
    """What the fleet asks of the rounds. A device is named by its id."""

    @property
    @abstractmethod
    def chunk_elements(self) -> int:
        """Number of elements in an update's chunk."""

    @property
    @abstractmethod
    def encodings(self) -> int:
        """Mask of the encodings that the plan allows (fedmote.model.encodings, bit)."""

    @property
    @abstractmethod
    def closing_notice(self) -> bytes | None:
        """The ClosingNotice of the present round, for a device that missed it; None: the round is not closing."""

    @abstractmethod
    def open_round(self, device: str) -> int:
        """Return the round in which the device may still work: of its plan or its update, else the next one."""

    @abstractmethod
    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""

    @abstractmethod
    def may_be_assigned(self, device: str, round: int) -> bool:
        """Tell whether the device may still be given a plan of that round."""

    @abstractmethod
    def folded_crc32(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update of that round if it is folded but not committed yet."""

    @abstractmethod
    def committed_version(self, device: str, round: int) -> int | None:
        """Return the model version that ended the device's work of that round; None: it has not ended."""

    @abstractmethod
    def fold_update(self, update: Update, crc32: int) -> Refusal | None:
        """Fold an update. None: done."""

    @abstractmethod
    def device_connected(self, device: str) -> None:
        """Note that the device said Hello, or that it offers an update that was not expected but may count."""

    @abstractmethod
    def device_lost(self, device: str) -> None:
        """Note that the device's link broke."""

    @abstractmethod
    def device_withdrew(self, device: str, round: int) -> None:
        """Note that the device will not do the work of that round."""

    @abstractmethod
    def device_refused(self, device: str, round: int) -> None:
        """Note that the device's update of that round was refused before it could be folded."""

    @abstractmethod
    def device_late(self, device: str, round: int) -> None:
        """Note that the device offers its update of a round that was committed before."""

    @abstractmethod
    def come_back_s(self, device: str) -> float:
        """Return for how many seconds a device that says Hello need not expect a plan."""

    @abstractmethod
    def model_chunk(self, version: int, index: int) -> bytes | None:
        """Return a ModelChunk message; version: as the wire names it. None: that model is not served."""


class TaskCoordinator(Protocol):
    """What the fleet asks of the tasks besides fit."""

    def plan_for(self, device: str) -> bytes | None:
        """Return the plan that the device should have now; None: none."""
        ...

    def take_result(self, device: str, result: Evaluation | Answer) -> None:
        """Take a device's result, if it is awaited and valid."""
        ...

    def device_withdrew(self, device: str, round: int) -> None:
        """Note that the device will not do the work of that round."""
        ...
