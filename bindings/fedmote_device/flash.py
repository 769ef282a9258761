# SPDX-License-Identifier: Apache-2.0
"""NOR flash in memory for a device (csdk's fm_keep.h), whose power can go at any operation."""

from __future__ import annotations

from typing import Final

import numpy as np

from fedmote_device._fedmote import ffi, lib

CUTS: Final = ("before", "half", "garbage", "after")
"""What the operation at which the power goes still does: nothing, half of it, half of it and a torn byte, all of it."""


class Flash:
    """Flash of `size` bytes, in blocks of `erase_size`, programmed `program_size` bytes at a time.

    New, no byte of it is blank.

    It outlives devices: hand it to the next one after a power cut. Not for two devices at once.
    """

    def __init__(self, size: int, *, erase_size: int = 4096, program_size: int = 8) -> None:
        self.image = np.zeros(size, np.uint8)
        self._c = ffi.new("fmb_flash_t *")
        self._pointer = ffi.from_buffer("uint8_t[]", self.image, require_writable=True)
        self._c.bytes, self._c.size = self._pointer, size
        self._c.erase_size, self._c.program_size = erase_size, program_size

    @staticmethod
    def size_for(elements: int, *, erase_size: int = 4096, program_size: int = 8, least_chunk: int = 16) -> int:
        """Bytes that a model of `elements` needs; ValueError for an erase or program size that is out of range."""
        storage = ffi.new("fm_storage_t *", {"erase_size": erase_size, "program_size": program_size})
        size = int(lib.fm_keep_size(storage, elements, least_chunk))
        if size == 0:
            raise ValueError(f"erase_size {erase_size}, program_size {program_size}: see fm_storage_t in fm_keep.h")
        return size

    @property
    def operations(self) -> int:
        """Programs and erases since the flash was made or switched on."""
        return int(self._c.operations)

    @property
    def off(self) -> bool:
        """Whether the power went: nothing more is written."""
        return bool(self._c.off)

    @property
    def misused(self) -> int:
        """Bytes that were programmed without being blank, and accesses out of bounds or not aligned."""
        return int(self._c.misused)

    def cut_power(self, operation: int, how: str = "before") -> None:
        """Let the power go at the `operation`-th program or erase from now, the first being 1; how: one of CUTS."""
        self._c.cut_at, self._c.cut_how = self._c.operations + operation, CUTS.index(how)

    def power_on(self) -> None:
        """Work again, with what is there."""
        self._c.off, self._c.operations, self._c.cut_at = False, 0, 0
