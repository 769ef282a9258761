# SPDX-License-Identifier: Apache-2.0
"""NOR flash in memory for a device (csdk's fm_keep.h). Its power can fail at any operation."""

from __future__ import annotations

from typing import Final

import numpy as np

from fedmote_device._fedmote import ffi, lib

CUTS: Final = ("before", "half", "garbage", "after")
"""How much the operation during which the power fails still does: nothing, half, half and a torn byte, or all."""


class Flash:
    """Flash of `size` bytes, in blocks of `erase_size`, programmed `program_size` bytes at a time.

    No byte of a new one is blank. It outlives devices: give it to the next device after a power cut, but never to two
    devices at once.
    """

    def __init__(self, size: int, *, erase_size: int = 4096, program_size: int = 8) -> None:
        self.image = np.zeros(size, np.uint8)
        self._c = ffi.new("fmb_flash_t *")
        self._pointer = ffi.from_buffer("uint8_t[]", self.image, require_writable=True)
        self._c.bytes, self._c.size = self._pointer, size
        self._c.erase_size, self._c.program_size = erase_size, program_size

    @staticmethod
    def size_for(elements: int, *, erase_size: int = 4096, program_size: int = 8, least_chunk: int = 16) -> int:
        """Return the bytes that a model of `elements` needs. Raise ValueError if a size is out of range."""
        storage = ffi.new("fm_storage_t *", {"erase_size": erase_size, "program_size": program_size})
        size = int(lib.fm_keep_size(storage, elements, least_chunk))
        if size == 0:
            raise ValueError(f"erase_size {erase_size}, program_size {program_size}: see fm_storage_t in fm_keep.h")
        return size

    @property
    def operations(self) -> int:
        """Number of programs and erases since the flash was made or switched on."""
        return int(self._c.operations)

    @property
    def off(self) -> bool:
        """Whether the power has failed: nothing more is written."""
        return bool(self._c.off)

    @property
    def misused(self) -> int:
        """Number of bytes programmed without being blank, and of accesses out of bounds or not aligned."""
        return int(self._c.misused)

    def cut_power(self, operation: int, how: str = "before") -> None:
        """Let the power fail at the `operation`-th program or erase from now; 1 is the next. how: one of CUTS."""
        self._c.cut_at, self._c.cut_how = self._c.operations + operation, CUTS.index(how)

    def power_on(self) -> None:
        """Switch the power on again. The contents stay as they are."""
        self._c.off, self._c.operations, self._c.cut_at = False, 0, 0
