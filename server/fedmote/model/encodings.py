# SPDX-License-Identifier: Apache-2.0
"""The encodings of an update's elements. A new one is a line here, and its arithmetic in bindings/src and csdk/src."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedmote_device import kernels


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding.

    number: on the wire (schema/fedmote.fbs, Encoding). element_bytes: bytes of one element. scaled: whether each chunk
    carries a scale.
    """

    number: int
    element_bytes: int
    scaled: bool

    @property
    def bit(self) -> int:
        """Its bit in a plan's mask of encodings."""
        return 1 << self.number


ENCODINGS: Final = {
    "float32": Encoding(kernels.FLOAT32, 4, scaled=False),
    "int8": Encoding(kernels.INT8, 1, scaled=True),
}
"""By the name that federation.toml gives."""

BY_NUMBER: Final = {encoding.number: encoding for encoding in ENCODINGS.values()}
"""By the number that the wire gives."""
