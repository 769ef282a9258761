# SPDX-License-Identifier: Apache-2.0
"""No small damage to a message of any body, from any writer, does harm on either side.
C is tested under the sanitizers and against FlatBuffers' own C++ verifier (mutations.c lists the mutations). Python is
tested through the server's decoder and flatc's accessors.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import flatc_judge as judge
import pytest

from fedmote.wire import DeviceState, Message, ModelChunk, Withdraw
from fedmote.wire.Body import Body

HERE = Path(__file__).resolve().parent
CSDK = judge.ROOT / "csdk"
BUILD = judge.ROOT / "build" / "interop"
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
INCLUDE = [f"-I{folder}" for folder in (CSDK / "include", CSDK / "src", CSDK.parent / "tests" / "csdk", BUILD)]


@pytest.fixture(scope="module")
def program() -> Path:
    """Build mutations.c with the library and the official verifier, which Debian's flatc generates for Debian's
    headers.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/usr/bin/flatc", "--cpp", "-o", BUILD, judge.SCHEMA], check=True)
    objects = []
    for source in [*sorted((CSDK / "src").glob("*.c")), HERE / "mutations.c", HERE / "official.cpp"]:
        compiler = ["clang++", "-std=c++17"] if source.suffix == ".cpp" else ["clang", "-std=c99", "-pedantic"]
        objects.append(BUILD / f"{source.stem}.o")
        warnings = ["-Wall", "-Wextra", "-Werror"]
        subprocess.run(
            [*compiler, *SANITIZE, *warnings, *INCLUDE, "-c", source, "-o", objects[-1]], check=True, timeout=300
        )
    program = BUILD / "mutations"
    subprocess.run(["clang++", *SANITIZE, *objects, "-o", program], check=True)
    return program


class Verdict:
    """A line of mutations.c."""

    def __init__(self, line: str) -> None:
        ours, official, tried, accepted, stricter, path = line.split(" ", 5)
        self.ours, self.official = ours == "1", official == "1"
        self.tried, self.accepted, self.stricter = int(tried), int(accepted), int(stricter)
        self.name = Path(path).name


def run(program: Path, folder: Path, messages: dict[str, bytes]) -> list[Verdict]:
    for name, message in messages.items():
        (folder / name).write_bytes(message)
    result = subprocess.run(
        [program, *(folder / name for name in messages)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    return [Verdict(line) for line in result.stdout.splitlines()]


def written_by_each() -> dict[str, bytes]:
    """Return every filling of every body, from every writer."""
    out: dict[str, bytes] = {}
    writers: dict[str, Callable[[judge.Said], bytes]] = {"c": judge.write_c, "python": judge.write_python}
    for body in judge.bodies():
        fillings = judge.fillings(body)
        for writer, write in writers.items():
            out |= {f"{body}-{name}-{writer}": write((body, fields)) for name, fields in fillings.items()}
        flatc = judge.write([(body, fields) for fields in fillings.values()])
        out |= {f"{body}-{name}-flatc": message for name, message in zip(fillings, flatc, strict=True)}
    return out


def test_damaged_messages_in_c(program: Path, tmp_path: Path) -> None:
    messages = written_by_each()
    verdicts = run(program, tmp_path, messages)
    assert [verdict.name for verdict in verdicts] == list(messages)
    for verdict in verdicts:
        size = len(messages[verdict.name])
        assert verdict.ours, verdict.name
        assert verdict.official, verdict.name
        assert verdict.tried == size * 255 + size * 4, verdict.name
        # Most damage changes a number that may have any value, which the verifiers cannot detect.
        assert 0 < verdict.accepted < verdict.tried, verdict.name


def test_the_check_knows_every_view() -> None:
    header = (CSDK / "include" / "fedmote" / "fm_wire.h").read_text()
    views = set()
    for fields, name in re.findall(r"typedef struct \{([^}]*)\} fm_(\w+)_t;", header):
        views |= {f"{name}.{field}" for field in re.findall(r"fm_bytes_t (\w+);", fields)}
    check = (judge.ROOT / "tests" / "csdk" / "message_check.h").read_text()
    assert set(re.findall(r"VIEW\(FM_BODY_\w+, VIEW_\w+, ([\w.]+)\)", check)) == views
    assert len(views) >= 6


def built(kind: int, table: Callable[[flatbuffers.Builder], int]) -> bytes:
    """Return a message with any body, right or wrong."""
    builder = flatbuffers.Builder(64)
    body = table(builder)
    Message.MessageStart(builder)
    Message.MessageAddBodyType(builder, kind)
    Message.MessageAddBody(builder, body)
    builder.Finish(Message.MessageEnd(builder), file_identifier=b"FMO1")
    return bytes(builder.Output())


def withdraw(builder: flatbuffers.Builder, reason: int = 1) -> int:
    Withdraw.WithdrawStart(builder)
    Withdraw.WithdrawAddReason(builder, reason)
    return int(Withdraw.WithdrawEnd(builder))


def chunk_before_something(builder: flatbuffers.Builder) -> int:
    """Return a chunk with a vector behind its data."""
    builder.CreateByteVector(bytes(12))
    data = builder.CreateByteVector(b"\1\2\3\4")
    ModelChunk.ModelChunkStart(builder)
    ModelChunk.ModelChunkAddData(builder, data)
    return int(ModelChunk.ModelChunkEnd(builder))


def online(builder: flatbuffers.Builder, value: int) -> int:
    DeviceState.DeviceStateStart(builder)
    builder.PrependUint8Slot(0, value, 1)
    return int(DeviceState.DeviceStateEnd(builder))


def with_table_of(size: int) -> bytes:
    """Return a message whose root table claims to have `size` bytes; its fields take 9."""
    message = bytearray(judge.write_c(("Withdraw", {"round": 1})))
    (root,) = struct.unpack_from("<I", message, 0)
    (back,) = struct.unpack_from("<i", message, root)
    struct.pack_into("<H", message, root - back + 2, size)
    return bytes(message)


STRICTER: dict[str, Callable[[], bytes]] = {
    "an enum's value that the schema does not have": lambda: built(Body.Withdraw, lambda b: withdraw(b, 6)),
    "a bool that is neither 0 nor 1": lambda: built(Body.DeviceState, lambda b: online(b, 2)),
    "a body that the schema does not have": lambda: built(len(judge.bodies()) + 1, withdraw),
    "a body of type NONE": lambda: built(Body.NONE, withdraw),
    "a field outside its table": lambda: with_table_of(8),
    "a table larger than the message": lambda: with_table_of(1000),
    "bulk data that is not last": lambda: built(Body.ModelChunk, chunk_before_something),
    "something after the message": lambda: judge.write_c(("ModelChunk", {"data": b"\1\2\3\4"})) + bytes(8),
}
"""What FlatBuffers' own verifier lets pass and ours does not, on purpose."""


@pytest.mark.parametrize("what", STRICTER)
def test_where_ours_is_stricter(what: str, program: Path, tmp_path: Path) -> None:
    message = STRICTER[what]()
    (verdict,) = run(program, tmp_path, {"message": message})
    assert (verdict.ours, verdict.official) == (False, True)
    assert judge.read_python(message) is None


def test_damaged_messages_in_python() -> None:
    """Both Python readers use the same verifier, and must agree on every value after it."""
    tried = accepted = 0
    for body in judge.bodies():
        said = (body, judge.fillings(body)["typical"])
        for message in (judge.write_c(said), judge.write_python(said), judge.write([said])[0]):
            damaged = [message[:cut] for cut in range(len(message))]
            for bit in range(8 * len(message)):
                flipped = bytearray(message)
                flipped[bit // 8] ^= 1 << bit % 8
                damaged.append(bytes(flipped))
            for one in damaged:
                read = judge.read_python(one)
                told = judge.read_c(one)
                assert (read and (read[0], judge.bits(read[1]))) == (told and (told[0], judge.bits(told[1])))
                tried += 1
                accepted += read is not None
    assert tried > 9 * 3 * 40 * len(judge.bodies())
    assert 0 < accepted < tried
