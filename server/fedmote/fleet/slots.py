# SPDX-License-Identifier: Apache-2.0
"""Slots: the memory for uploads in flight, at most so many at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fedmote.fleet.limits import Limits
from fedmote.learning.update import Update
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateKind import UpdateKind

WINDOW_BYTES = 32  # of UpdateStatus.received at most


@dataclass(slots=True)
class Slot:
    """One upload in flight.

    round, crc32: as its UpdateBegin names them. element_bytes: bytes of one element. elements: in the whole upload.
    update: what it becomes. received: one byte for each chunk, 1 if it arrived. missing: chunks that did not arrive
    yet. touched: when something of it arrived last, in seconds. progressed: when a chunk arrived last that was missing.
    """

    round: int
    crc32: int
    chunk_elements: int
    element_bytes: int
    elements: int
    update: Update
    received: bytearray
    missing: int
    touched: float
    progressed: float

    def is_of(self, begin: UpdateBegin) -> bool:
        """Tell whether an UpdateBegin offers this very upload: the same bytes in the same encoding."""
        return bool(
            self.round == begin.Round() and self.crc32 == begin.Crc32() and self.elements == begin.Elements()
            and self.update.encoding == begin.Encoding() and self.update.delta == (begin.Kind() == UpdateKind.Delta)
        )  # fmt: skip

    def place_chunk(self, index: int, data: memoryview, scale: float, now: float) -> bool:
        """Put a chunk in its place. False: its length is wrong, and nothing changed."""
        at = index * self.chunk_elements * self.element_bytes
        if len(data) != min(self.chunk_elements * self.element_bytes, len(self.update.data) - at):
            return False
        self.update.data[at : at + len(data)] = data
        if self.update.scales is not None:
            self.update.scales[index] = scale
        self.touched = now
        if not self.received[index]:
            self.received[index] = 1
            self.missing -= 1
            self.progressed = now
        return True

    def window(self) -> tuple[int, bytes]:
        """Return `first` and `received` as UpdateStatus tells them (docs/wire.md)."""
        first = self.received.find(0)
        if first < 0:
            return len(self.received), b""
        rest = np.frombuffer(self.received, np.uint8)[first:]
        bits = np.packbits(rest[: 8 * WINDOW_BYTES], bitorder="little").tobytes()
        return first, bits if rest[8 * WINDOW_BYTES :].any() else bits.rstrip(b"\0")


class Slots:
    """The slots of one federation, by device id."""

    def __init__(self, limits: Limits, counters: Counter[str]) -> None:
        self.limits, self.counters = limits, counters
        self.by_device: dict[str, Slot] = {}

    def get(self, device: str) -> Slot | None:
        """Return the device's slot; None: it has none."""
        return self.by_device.get(device)

    def open(self, device: str, slot: Slot) -> Slot:
        """Give the device a slot; make_room() has said that there is one."""
        self.by_device[device] = slot
        return slot

    def free(self, device: str) -> None:
        """Free the device's slot, if it has one."""
        self.by_device.pop(device, None)

    def make_room(self, now: float) -> bool:
        """Tell whether there is room for one more upload. One that has been silent for too long is given up for it."""
        if len(self.by_device) < self.limits.slots:
            return True
        silent, oldest = min(self.by_device.items(), key=lambda item: item[1].touched)
        if now - oldest.touched < self.limits.slot_silence_s:
            return False
        self.free(silent)
        self.counters["slots_reclaimed"] += 1
        return True

    def in_flight(self) -> list[Slot]:
        """Return the uploads in flight."""
        return list(self.by_device.values())
