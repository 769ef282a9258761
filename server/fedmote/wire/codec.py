# SPDX-License-Identifier: Apache-2.0
"""Messages to bytes and back, by flatc's own Python (fedmote.wire). What arrives is verified in C first."""

from __future__ import annotations

import importlib
from typing import Any

import flatbuffers
import numpy as np

from fedmote.wire import Message as _message
from fedmote.wire.Body import Body
from fedmote_device import kernels

_NAMES = {value: name for name, value in vars(Body).items() if isinstance(value, int) and value}
_MODULES = {name: importlib.import_module(f"fedmote.wire.{name}") for name in _NAMES.values()}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def encode(body: str, **fields: int | float | bool | str | bytes | list[int]) -> bytes:
    """Return the message whose body is the table `body` with these fields, named as in the schema.

    Fields not given keep their defaults. A bytes field is the last thing in the message, so that a
    device can stream it.
    """
    module = _MODULES[body]
    builder = flatbuffers.Builder(256)
    # FlatBuffers are built from their end: what is created first ends up last.
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


def decode(message: bytes) -> tuple[str, Any] | None:
    """Verify a message; return the name of its body's table and flatc's accessor of it, None for no valid message."""
    name = _NAMES.get(kernels.verify(message))
    if name is None:
        return None
    union: Any = _message.Message.GetRootAs(message, 0).Body()
    body = getattr(_MODULES[name], name)()
    body.Init(union.Bytes, union.Pos)
    return name, body
