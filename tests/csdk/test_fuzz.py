# SPDX-License-Identifier: Apache-2.0
"""Each fuzz_*.c is a target of libFuzzer, run for a fixed number of inputs under the sanitizers.

To go on for longer: `build/fuzz/fuzz_codec build/fuzz/fuzz_codec.corpus`, after the test built it.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
FLAGS = [
    "-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    f"-I{ROOT / 'csdk/include'}", f"-I{ROOT / 'csdk/src'}", f"-I{HERE}",
]  # fmt: skip


def golden() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "tests/interop/golden").glob("*/*.fmo"))]


def packet(first: int, *parts: bytes) -> bytes:
    """An MQTT packet of under 16,384 bytes."""
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
    return bytes([first]) + size + body


def sessions() -> list[bytes]:
    """What a friendly broker says, behind the 4 bytes of a seed."""
    up = packet(0x20, b"\0\0") + packet(0x90, b"\0\1\1\1")
    messages = golden()[::10]
    at_least_once = [
        packet(0x32, b"\0\x09fm/1/f/dn", bytes([0, n]), message) for n, message in enumerate(messages, start=1)
    ]
    # The device asks for one of four chunks, when it likes, and sends with a growing packet identifier.
    chunks = [packet(0x30, b"\0\x10fm/1/f/model/1/", b"0123"[n : n + 1], messages[n]) for n in range(4)]
    acknowledged = [packet(first, bytes([0, n])) for n in range(1, 9) for first in (0x40, 0xB0)]
    suback = [packet(0x90, bytes([0, n, 0])) for n in range(1, 9)]
    said = [up, *(up + b"".join(part) for part in (at_least_once, chunks, acknowledged * 4, suback))]
    said.append(up + b"".join(a + b for a, b in zip(chunks * 4, acknowledged, strict=True)) + packet(0xD0))
    said.append(up + b"".join(s + c + a for s, c, a in zip(suback, chunks * 2, acknowledged[1::2], strict=True)))
    return [bytes([seed, 1, 2, 3]) + one for seed in range(0, 256, 32) for one in said]


def peers() -> list[bytes]:
    """What a friendly peer on a serial cable does, as records of fuzz_serial.c, behind the 4 bytes of a seed."""

    def record(control: int, first: int = 0, second: int = 0, payload: bytes = b"", how: int = 0) -> bytes:
        return struct.pack("<BBHHB", how, control, first, second, len(payload)) + payload

    greet, probe, gap, cancel = record(0), record(1 | 8), record(1 | 4), record(3, second=400)
    message = struct.pack("<I", 20) + bytes(range(20))
    begins, whole = record(2, payload=message[:10]), record(2, payload=message)
    acks = b"".join(record(1, first=n) for n in range(0, 2001, 200))
    said = [
        greet + whole * 3,
        greet + begins + record(2, payload=message[10:]) + record(2, second=0xFFF0, payload=message) + probe,
        greet + begins + cancel + whole + begins + greet + whole,
        greet + acks + gap * 2 + acks + record(2, second=9, payload=message) + whole,
        greet + begins + record(2, payload=message, how=4) + record(2, payload=bytes(240), how=2) + record(2),
        record(0, payload=b"\x55" * 200, how=1) * 2 + record(0, payload=b"\0", how=1) + greet + acks,
    ]
    return [bytes([seed, 1, 2, 3]) + one for seed in range(0, 256, 32) for one in said]


TARGETS: dict[str, tuple[Callable[[], list[bytes]], int]] = {
    "fuzz_codec": (golden, 500_000),
    "fuzz_mqtt": (sessions, 100_000),
    "fuzz_serial": (peers, 60_000),
}
"""Of each target, what it starts from and how many inputs it tries."""


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    """The library's objects, instrumented for the fuzzer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    out = []
    for source in sorted((ROOT / "csdk" / "src").glob("*.c")):
        out.append(BUILD / f"{source.stem}.o")
        subprocess.run(["clang", *FLAGS, "-fsanitize=fuzzer-no-link", "-c", source, "-o", out[-1]], check=True)
    return out


@pytest.mark.parametrize("source", sorted(HERE.glob("fuzz_*.c")), ids=lambda path: path.stem)
def test_fuzz(source: Path, objects: list[Path]) -> None:
    program = BUILD / source.stem
    subprocess.run(["clang", *FLAGS, "-fsanitize=fuzzer", source, *objects, "-o", program], check=True)
    corpus = BUILD / f"{source.stem}.corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    seeds, runs = TARGETS[source.stem]
    for n, seed in enumerate(seeds()):
        (corpus / f"seed{n:03}").write_bytes(seed)
    result = subprocess.run(
        [program, f"-runs={runs}", "-seed=1", "-max_len=600", "-timeout=60", corpus],
        capture_output=True, text=True, errors="replace", timeout=600, cwd=BUILD,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-6000:]
    assert re.search(rf"Done {runs} runs", result.stderr), result.stderr[-2000:]
