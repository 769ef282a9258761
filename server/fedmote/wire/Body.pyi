from __future__ import annotations

import flatbuffers
import numpy as np

import typing
from typing import cast

uoffset: typing.TypeAlias = flatbuffers.number_types.UOffsetTFlags.py_type

class Body(object):
  NONE = cast(int, ...)
  Hello = cast(int, ...)
  Welcome = cast(int, ...)
  Refusal = cast(int, ...)
  Plan = cast(int, ...)
  Withdraw = cast(int, ...)
  ModelChunk = cast(int, ...)
  ChunkRequest = cast(int, ...)
  UpdateBegin = cast(int, ...)
  UpdateChunk = cast(int, ...)
  UpdateEnd = cast(int, ...)
  UpdateStatus = cast(int, ...)
  Progress = cast(int, ...)
  ClosingNotice = cast(int, ...)
  Receipt = cast(int, ...)
  Commit = cast(int, ...)
  DeviceState = cast(int, ...)
  Evaluation = cast(int, ...)
  Answer = cast(int, ...)

