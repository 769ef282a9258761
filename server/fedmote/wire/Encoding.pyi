from __future__ import annotations

import flatbuffers
import numpy as np

import typing
from typing import cast

uoffset: typing.TypeAlias = flatbuffers.number_types.UOffsetTFlags.py_type

class Encoding(object):
  Float32 = cast(int, ...)
  Float16 = cast(int, ...)
  Int8 = cast(int, ...)
  TopK = cast(int, ...)

