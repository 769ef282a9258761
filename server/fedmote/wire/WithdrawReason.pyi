from __future__ import annotations

import flatbuffers
import numpy as np

import typing
from typing import cast

uoffset: typing.TypeAlias = flatbuffers.number_types.UOffsetTFlags.py_type

class WithdrawReason(object):
  Application = cast(int, ...)
  Battery = cast(int, ...)
  Metered = cast(int, ...)
  Busy = cast(int, ...)
  NoTime = cast(int, ...)
  TrainingFailed = cast(int, ...)

