# SPDX-License-Identifier: Apache-2.0
"""Each tests/csdk/test_*.c is a program of checks, run under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "ctests"
FOLDERS = ("csdk/src", "csdk/train", "csdk/port/posix")
FLAGS = [
    "-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Wstrict-prototypes",
    "-pedantic", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-I", str(ROOT / "csdk/include"), *(f"-I{ROOT / folder}" for folder in FOLDERS), f"-I{HERE}",
]  # fmt: skip
COMPILER = os.environ.get("CC", "gcc")


@pytest.fixture(scope="session")
def objects() -> list[str]:
    """The library's objects, with counters for gcov."""
    BUILD.mkdir(parents=True, exist_ok=True)
    out = []
    for source in sorted(s for folder in FOLDERS for s in (ROOT / folder).glob("*.c")):
        target = BUILD / f"{source.stem}.o"
        subprocess.run([COMPILER, *FLAGS, "--coverage", "-c", str(source), "-o", str(target)], check=True)
        out.append(str(target))
    return out


@pytest.mark.parametrize("source", sorted(HERE.glob("test_*.c")), ids=lambda p: p.stem)
def test_program(source: Path, objects: list[str], tmp_path: Path) -> None:
    """Build the program, run it, and let it report."""
    program = BUILD / source.stem
    relaxed = [f for f in FLAGS if f not in ("-Wconversion", "-Wshadow")]
    subprocess.run([COMPILER, *relaxed, "--coverage", str(source), *objects, "-lm", "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " 0 failed" in result.stdout
