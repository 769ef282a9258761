# SPDX-License-Identifier: Apache-2.0
"""Each fuzz_*.c is a target of libFuzzer, run for a fixed number of inputs under the sanitizers.

To go on for longer: `build/fuzz/fuzz_codec build/fuzz/fuzz_codec.corpus`, after the test built it.
"""

from __future__ import annotations

import re
import shutil
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
RUNS = 200_000


def golden() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "tests/interop/golden").glob("*/*.fmo"))]


def sessions() -> list[bytes]:
    """What a friendly broker says, behind the seed of 4 bytes: some messages of every kind at both qualities."""
    hello = b"\x20\x02\x00\x00" + b"\x90\x04\x00\x01\x01\x01"
    publish = [b"\x00\x06f/1/dn" + message for message in golden()[::10]]
    at_most_once = b"".join(b"\x30" + bytes([len(one)]) + one for one in publish if len(one) < 128)
    at_least_once = b"".join(
        b"\x32" + bytes([len(one) + 2]) + one[:8] + bytes([0, n]) + one[8:]
        for n, one in enumerate(publish, start=1)
        if len(one) < 126
    )
    rest = b"\x40\x02\x00\x02" + b"\xd0\x00" + b"\xb0\x02\x00\x03"
    said = (hello, hello + at_most_once, hello + at_least_once, hello + rest + at_least_once + rest)
    return [bytes([seed, 1, 2, 3]) + one for seed in range(4) for one in said]


SEEDS: dict[str, Callable[[], list[bytes]]] = {"fuzz_codec": golden, "fuzz_mqtt": sessions}


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
    for n, seed in enumerate(SEEDS[source.stem]()):
        (corpus / f"seed{n:03}").write_bytes(seed)
    result = subprocess.run(
        [program, f"-runs={RUNS}", "-seed=1", "-max_len=600", "-timeout=60", corpus],
        capture_output=True, text=True, errors="replace", timeout=600, cwd=BUILD,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-6000:]
    assert re.search(rf"Done {RUNS} runs", result.stderr), result.stderr[-2000:]
