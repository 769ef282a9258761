from __future__ import annotations

import flatbuffers
import numpy as np

import typing
from typing import cast

uoffset: typing.TypeAlias = flatbuffers.number_types.UOffsetTFlags.py_type

class RefusalReason(object):
  Protocol = cast(int, ...)
  Identity = cast(int, ...)
  Layout = cast(int, ...)
  Malformed = cast(int, ...)
  NonFinite = cast(int, ...)
  Checksum = cast(int, ...)
  Closed = cast(int, ...)
  NotPlanned = cast(int, ...)
  TooLarge = cast(int, ...)

