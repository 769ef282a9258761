# SPDX-License-Identifier: Apache-2.0
"""Every body of the schema, written by each side and read by the others: the C codec, the server's Python, flatc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatc_judge as judge
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmote.wire.Body import Body
from fedmote_device import codec as c_codec

TINY = 2.0**-149  # the smallest float
SIXTY_FOURTHS = st.integers(-(2**22), 2**22).map(lambda n: n / 64)
"""Floats that six digits after the point tell exactly."""
# Python and flatc leave out what equals its default, and -0.0 == 0.0.
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: x or 0.0)
FLOATS_BITS = st.one_of(FLOATS, st.sampled_from([float("inf"), float("-inf"), float("nan"), TINY]))


def values(field: judge.Field, floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    u32 = st.integers(0, 2**32 - 1)
    match field.kind:
        case "integer":
            return st.integers(0, field.largest)
        case "enum":
            return st.integers(0, len(field.symbols) - 1)
        case "boolean":
            return st.booleans()
        case "number":
            return floats
        case "string":
            return st.text(min_size=1 if field.required else 0, max_size=20)
        case "bytes":
            return st.binary(max_size=70)
        case "counts":
            return st.lists(u32, max_size=40)
        case _:
            return st.lists(st.tuples(u32, u32), max_size=5)


def messages(floats: st.SearchStrategy[float]) -> st.SearchStrategy[list[judge.Said]]:
    """One message of every body, each with some of its fields."""
    tables = []
    for body, known in judge.bodies().items():
        strategies = {name: values(field, floats) for name, field in known.items()}
        must = {name: strategy for name, strategy in strategies.items() if known[name].required}
        may = {name: strategy for name, strategy in strategies.items() if not known[name].required}
        tables.append(st.tuples(st.just(body), st.fixed_dictionaries(must, optional=may)))
    return st.tuples(*tables).map(list)


# Each example is a message of every body and one run of flatc.
exactly = settings(max_examples=40)


def told(said: judge.Said | None) -> judge.Said | None:
    return said and (said[0], judge.bits(said[1]))


def check_flatc_reads_c(said: list[judge.Said]) -> None:
    read = judge.read([judge.write_c(one) for one in said])
    assert [judge.complete(one) for one in read] == [judge.complete(one) for one in said]


def check_c_and_python_read_flatc(said: list[judge.Said], *options: str) -> None:
    for one, message in zip(said, judge.write(said, *options), strict=True):
        assert told(judge.read_c(message)) == judge.complete(one)
        assert told(judge.read_python(message)) == judge.complete(one)


def check_c_and_python_read_each_other(said: list[judge.Said]) -> None:
    for one in said:
        assert told(judge.read_c(judge.write_python(one))) == judge.complete(one)
        assert told(judge.read_python(judge.write_c(one))) == judge.complete(one)


def test_both_codecs_have_the_bodies_of_the_schema() -> None:
    assert {judge.camel(name): number for name, number in c_codec.TYPES.items()} == {
        name: number for number, name in enumerate(judge.bodies(), start=1)
    }
    python = {name: value for name, value in vars(Body).items() if isinstance(value, int) and value}
    assert python == {name: number for number, name in enumerate(judge.bodies(), start=1)}


def test_the_comparison_sees_a_difference() -> None:
    assert judge.complete(("Progress", {"loss": 0.1})) != judge.complete(("Progress", {"loss": 0.10000001}))
    assert judge.complete(("Progress", {"loss": -0.0})) != judge.complete(("Progress", {}))
    assert judge.complete(("Plan", {})) != judge.complete(("Plan", {"epochs": 2}))


def test_flatc_reads_what_c_wrote() -> None:
    check_flatc_reads_c(judge.all_fillings())


def test_flatc_reads_minus_zero() -> None:
    check_flatc_reads_c([("Progress", {"loss": -0.0})])


@pytest.mark.parametrize("options", [(), ("--force-defaults",)], ids=["lean", "defaults written out"])
def test_c_and_python_read_what_flatc_wrote(options: tuple[str, ...]) -> None:
    check_c_and_python_read_flatc(judge.all_fillings(), *options)


def test_c_and_python_read_each_other() -> None:
    check_c_and_python_read_each_other(judge.all_fillings())


@exactly
@given(messages(SIXTY_FOURTHS))
def test_flatc_reads_whatever_c_wrote(said: list[judge.Said]) -> None:
    check_flatc_reads_c(said)


@exactly
@given(messages(FLOATS))
def test_c_and_python_read_whatever_flatc_wrote(said: list[judge.Said]) -> None:
    check_c_and_python_read_flatc(said)


@exactly
@given(messages(FLOATS_BITS))
def test_c_and_python_read_whatever_the_other_wrote(said: list[judge.Said]) -> None:
    check_c_and_python_read_each_other(said)


@pytest.mark.parametrize("size", [*range(10), 255, 256, 4096, 65536])
@pytest.mark.parametrize("body", ["ModelChunk", "UpdateChunk"])
def test_bulk_data_of_any_size(body: str, size: int) -> None:
    said = [(body, {"index": 3, "data": bytes(i * 7 % 256 for i in range(size))})]
    check_flatc_reads_c(said)
    check_c_and_python_read_flatc(said)
    check_c_and_python_read_each_other(said)


def newer_schema(folder: Path) -> Path:
    """The schema as a later version may have it: one more field in every table, one more body."""
    text = judge.SCHEMA.read_text()
    for body in judge.bodies():
        start = text.index(f"table {body} {{")
        end = text.index("}", start)
        text = f"{text[:end]}  later: string;\n  later_flag: ubyte = 7;\n{text[end:]}"
    last = list(judge.bodies())[-1]
    text = text.replace("union Body {", "table Later { round: uint32; }\n\nunion Body {").replace(
        f"{last}\n}}", f"{last}, Later\n}}"
    )
    path = folder / "fedmote.fbs"
    path.write_text(text)
    return path


def test_messages_of_a_later_schema(tmp_path: Path) -> None:
    schema = newer_schema(tmp_path)
    bodies = [name for name in judge.bodies(schema) if name != "Later"]
    assert bodies == list(judge.bodies())
    # Not chunks: their bulk data must stay last, which flatc does not promise when a string is appended.
    said = [one for one in judge.all_fillings() if "data" not in judge.bodies()[one[0]]]
    later = [(body, fields | {"later": "more to say", "later_flag": 1}) for body, fields in said]
    for one, message in zip(said, judge.write(later, schema=schema), strict=True):
        assert b"more to say" in message
        assert told(judge.read_c(message)) == judge.complete(one)
        assert told(judge.read_python(message)) == judge.complete(one)


def test_a_body_of_a_later_schema_is_no_message(tmp_path: Path) -> None:
    (message,) = judge.write([("Later", {"round": 1})], schema=newer_schema(tmp_path))
    assert judge.read_c(message) is None
    assert judge.read_python(message) is None
