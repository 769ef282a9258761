# SPDX-License-Identifier: Apache-2.0
"""Encode messages with flatc's generated Python; verify received ones in C, then decode them."""

from __future__ import annotations

import importlib
from typing import Any

import flatbuffers
import numpy as np

from fedmote.wire import Message as _message
from fedmote.wire.Answer import Answer
from fedmote.wire.Body import Body
from fedmote.wire.ChunkRequest import ChunkRequest
from fedmote.wire.ClosingNotice import ClosingNotice
from fedmote.wire.Commit import Commit
from fedmote.wire.DeviceState import DeviceState
from fedmote.wire.Evaluation import Evaluation
from fedmote.wire.Hello import Hello
from fedmote.wire.ModelChunk import ModelChunk
from fedmote.wire.Plan import Plan
from fedmote.wire.Progress import Progress
from fedmote.wire.Receipt import Receipt
from fedmote.wire.Refusal import Refusal
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateChunk import UpdateChunk
from fedmote.wire.UpdateEnd import UpdateEnd
from fedmote.wire.UpdateStatus import UpdateStatus
from fedmote.wire.Welcome import Welcome
from fedmote.wire.Withdraw import Withdraw
from fedmote_device import kernels

Table = (
    Hello | Welcome | Refusal | Plan | Withdraw | ModelChunk | ChunkRequest | UpdateBegin | UpdateChunk | UpdateEnd
    | UpdateStatus | Progress | ClosingNotice | Receipt | Commit | DeviceState | Evaluation | Answer
)  # fmt: skip
"""The body of a message, as flatc's accessor: each method reads one field."""

_NAMES = {value: name for name, value in vars(Body).items() if isinstance(value, int) and value}
_MODULES = {name: importlib.import_module(f"fedmote.wire.{name}") for name in _NAMES.values()}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def encode(body: str, **fields: int | float | bool | str | bytes | list[int]) -> bytes:
    """Return the message whose body is the table `body` with these fields, named as in the schema.

    A field that is not given keeps its default. A bytes field becomes the last thing in the message, so that a device
    can stream it.
    """
    module = _MODULES[body]
    builder = flatbuffers.Builder(256)
    # A FlatBuffer is built from its end: what is created first ends up last.
    offsets: dict[str, int] = {}
    for name, value in fields.items():
        if isinstance(value, bytes):
            offsets[name] = builder.CreateByteVector(value)
        elif isinstance(value, list):
            offsets[name] = builder.CreateNumpyVector(np.array(value, "<u4"))
    for name, value in fields.items():
        if isinstance(value, str):
            offsets[name] = builder.CreateString(value)
    getattr(module, f"{body}Start")(builder)
    for name, value in fields.items():
        getattr(module, f"{body}Add{_camel(name)}")(builder, offsets.get(name, value))
    table = getattr(module, f"{body}End")(builder)
    _message.MessageStart(builder)
    _message.MessageAddBodyType(builder, getattr(Body, body))
    _message.MessageAddBody(builder, table)
    builder.Finish(_message.MessageEnd(builder), file_identifier=b"FMO1")
    return bytes(builder.Output())


def decode(message: bytes) -> Table | None:
    """Verify a message and return its body; None when it is not a valid message."""
    name = _NAMES.get(kernels.verify(message))
    if name is None:
        return None
    union: Any = _message.Message.GetRootAs(message, 0).Body()
    body: Table = getattr(_MODULES[name], name)()
    body.Init(union.Bytes, union.Pos)
    return body


def text(field: str | bytes | None) -> str:
    """Return a string field as text. flatc's accessors return bytes, although its stubs say str."""
    return field.decode(errors="replace") if isinstance(field, bytes) else field or ""
