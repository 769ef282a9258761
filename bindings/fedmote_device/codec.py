# SPDX-License-Identifier: Apache-2.0
"""Convert messages to dictionaries and back with the C codec, as a device reads and writes them.

The names are the schema's: a body is `"hello"` or `"update_begin"`, its fields are a dictionary. Strings are str, byte
vectors bytes, ranges a list of (first, count), counts a list of int.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fedmote_device._fedmote import ffi, lib

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

_MEMBERS = dict(dict(ffi.typeof("fm_message_t").fields)["body"].type.fields)

BODIES: Final[dict[int, str]] = dict(enumerate(_MEMBERS, start=1))
"""Name of each body by its type in the union."""
TYPES: Final[dict[str, int]] = {name: number for number, name in BODIES.items()}
"""The reverse."""

_FIELDS: Final = {name: [field for field, _ in member.type.fields] for name, member in _MEMBERS.items()}
_STRINGS: Final = {"device_id", "detail"}
_RANGE: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<I")

Fields = dict[str, Any]
"""Fields of a body by name. Each has a type of its own, which the schema says."""


def _from_view(name: str, view: CData) -> str | bytes | list[int] | list[tuple[int, int]]:
    raw = bytes(ffi.buffer(view.data, view.size)) if view.size else b""
    if name in _STRINGS:
        return raw.decode("utf-8", "replace")
    if name == "counts":
        return [count for (count,) in _COUNT.iter_unpack(raw)]
    if name == "ranges":
        return [(first, count) for first, count in _RANGE.iter_unpack(raw)]
    return raw


def _to_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if name == "counts":
        return b"".join(map(_COUNT.pack, value))
    return b"".join(_RANGE.pack(*item) for item in value) if name == "ranges" else bytes(value)


def decode(message: bytes | bytearray | memoryview) -> tuple[str, Fields] | None:
    """Verify and read a message. Return the body's name and all its fields, or None if the message is not valid."""
    view = ffi.from_buffer("uint8_t[]", message)
    out = ffi.new("fm_message_t *")
    if lib.fm_message_decode(view, len(view), len(view), out) != lib.FM_OK:
        return None
    name = BODIES[out.type]
    body = getattr(out.body, name)
    fields = {}
    for field in _FIELDS[name]:
        value = getattr(body, field)
        fields[field] = _from_view(field, value) if isinstance(value, ffi.CData) else value
    return name, fields


def encode(name: str, fields: Mapping[str, Any] | None = None, /, **more: Any) -> bytes:
    """Write a message with the body `name`. Fields that are not given get the schema's default.

    Raise ValueError for an unknown body or field, or if a required field is missing. Raise OverflowError or TypeError
    for a value that its field cannot hold.
    """
    if name not in TYPES:
        raise ValueError(f"there is no body {name!r}; the schema has {', '.join(TYPES)}")
    values = {**(fields or {}), **more}
    unknown = values.keys() - set(_FIELDS[name])
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}")
    message = ffi.new("fm_message_t *")
    message.type = TYPES[name]
    lib.fmb_message_defaults(message)
    body = getattr(message.body, name)
    keep = []  # what the views point to
    tail = b""
    for field, value in values.items():
        member = getattr(body, field)
        if isinstance(member, ffi.CData):
            raw = _to_bytes(field, value)
            keep.append(ffi.from_buffer("uint8_t[]", raw))
            member.data, member.size = keep[-1], len(raw)
            tail = raw if field == "data" else tail
        else:
            setattr(body, field, value)
    size = ffi.new("uint32_t *")
    if lib.fm_message_encode(message, ffi.NULL, 0, size) != lib.FM_OK:
        raise ValueError(f"a required field of {name} is missing")
    out = bytearray(size[0])
    lib.fm_message_encode(message, ffi.from_buffer("uint8_t[]", out), len(out), size)
    return bytes(out) + tail
