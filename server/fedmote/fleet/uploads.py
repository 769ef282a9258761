# SPDX-License-Identifier: Apache-2.0
"""Uploads in flight: slots, and the chunks that have arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmote.learning.update import Update
from fedmote.wire.UpdateKind import UpdateKind

WINDOW_BYTES = 32


@dataclass(slots=True)
class Slot:
    """One upload in flight."""

    round: int
    crc32: int
    chunk_elements: int
    width: int
    elements: int
    update: Update
    received: bytearray
    missing: int
    touched: float

    def is_of(self, begin: Any) -> bool:
        """Tell whether it is this offer's: the same bytes, coded in the same way."""
        return bool(
            self.round == begin.Round() and self.crc32 == begin.Crc32() and self.elements == begin.Elements()
            and self.update.encoding == begin.Encoding() and self.update.delta == (begin.Kind() == UpdateKind.Delta)
        )  # fmt: skip

    def window(self) -> tuple[int, bytes]:
        """Return `first` and `received` as UpdateStatus tells them (docs/wire.md)."""
        first = self.received.find(0)
        if first < 0:
            return len(self.received), b""
        rest = np.frombuffer(self.received, np.uint8)[first:]
        bits = np.packbits(rest[: 8 * WINDOW_BYTES], bitorder="little").tobytes()
        return first, bits if rest[8 * WINDOW_BYTES :].any() else bits.rstrip(b"\0")
