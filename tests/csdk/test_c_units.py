# SPDX-License-Identifier: Apache-2.0
"""Each tests/csdk/test_*.c is a program of checks, run under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = ("csdk/src", "csdk/train", "csdk/port/posix")
FLAGS = [
    "-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Wstrict-prototypes",
    "-pedantic", "-Werror",
    "-I", str(ROOT / "csdk/include"), *(f"-I{ROOT / folder}" for folder in FOLDERS),
    f"-I{HERE}", f"-I{ROOT / 'bindings/src'}",
]  # fmt: skip
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COUNT = ["--coverage"]  # apart from the sanitizers, whose own checks would count as branches
COMPILER = os.environ.get("CC", "gcc")


Library = dict[str, list[str]]


@pytest.fixture(scope="session")
def library() -> Library:
    """The library's objects: under the sanitizers, and with counters for gcov."""
    out: Library = {}
    for name, extra in (("asan", SANITIZE), ("ctests", COUNT)):
        folder = ROOT / "build" / name
        folder.mkdir(parents=True, exist_ok=True)
        out[name] = []
        for source in sorted(s for folder_ in FOLDERS for s in (ROOT / folder_).glob("*.c")):
            target = folder / f"{source.stem}.o"
            subprocess.run([COMPILER, *FLAGS, *extra, "-c", str(source), "-o", str(target)], check=True)
            out[name].append(str(target))
    return out


@pytest.mark.parametrize(("build", "extra"), [("asan", SANITIZE), ("ctests", COUNT)], ids=["sanitized", "counted"])
@pytest.mark.parametrize("source", sorted(HERE.glob("test_*.c")), ids=lambda p: p.stem)
def test_program(source: Path, build: str, extra: list[str], library: Library, tmp_path: Path) -> None:
    """Build the program, run it, and let it report."""
    program = ROOT / "build" / build / source.stem
    relaxed = [f for f in FLAGS if f not in ("-Wconversion", "-Wshadow")]
    subprocess.run([COMPILER, *relaxed, *extra, str(source), *library[build], "-lm", "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " 0 failed" in result.stdout
