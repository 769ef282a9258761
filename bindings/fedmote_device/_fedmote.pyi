# SPDX-License-Identifier: Apache-2.0
# The cffi extension: C values are opaque here; the modules around it are typed in full.
from typing import Any

CData = Any

class _Lib:
    # kernels.h
    def fmb_fold(self, sum: CData, weight: CData, elements: int, update: CData, /) -> int: ...
    def fmb_finish(
        self, sum: CData, weight: CData, whole: float, base: CData, out: CData, elements: int, /
    ) -> None: ...
    def fmb_all_finite(self, data: CData, elements: int, /) -> int: ...
    def fmb_crc32(self, crc: int, data: CData, size: int, /) -> int: ...

ffi: Any
lib: _Lib
