# SPDX-License-Identifier: Apache-2.0
"""Each tests/csdk/test_*.c is a program of checks, run under AddressSanitizer and UndefinedBehaviorSanitizer, with
counters for gcov, and by QEMU on processors of 32 bits: ARM, and PowerPC, whose highest byte comes first.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = ("csdk/src", "csdk/train", "csdk/port/posix")
FLAGS = [
    "-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Wstrict-prototypes",
    "-pedantic", "-Werror", "-DFM_WITH_QUERY=1",
    "-I", str(ROOT / "csdk/include"), *(f"-I{ROOT / folder}" for folder in FOLDERS),
    f"-I{HERE}", f"-I{ROOT / 'bindings/src'}",
]  # fmt: skip


@dataclass(frozen=True)
class Build:
    """A way to compile and run; objects are in build/<name>."""

    name: str
    compiler: str
    extra: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()


HOST = os.environ.get("CC", "gcc")
BUILDS = {
    "sanitized": Build("asan", HOST, ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    # Apart from the sanitizers, whose own checks would count as branches.
    "counted": Build("ctests", HOST, ("--coverage",)),
    "powerpc": Build("powerpc", "powerpc-linux-gnu-gcc", ("-O2",), ("qemu-ppc", "-L", "/usr/powerpc-linux-gnu")),
    "arm": Build("arm", "arm-linux-gnueabihf-gcc", ("-O2",), ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf")),
}


@pytest.fixture(scope="session", params=BUILDS.values(), ids=list(BUILDS))
def build(request: pytest.FixtureRequest) -> Build:
    """One way after the other."""
    way: Build = request.param
    return way


@pytest.fixture(scope="session")
def library(build: Build) -> list[str]:
    """The library's objects."""
    folder = ROOT / "build" / build.name
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sorted(s for folder_ in FOLDERS for s in (ROOT / folder_).glob("*.c")):
        target = folder / f"{source.stem}.o"
        subprocess.run([build.compiler, *FLAGS, *build.extra, "-c", str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    return objects


def run(build: Build, source: Path, objects: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a program with the library and run it in a folder."""
    program = ROOT / "build" / build.name / source.stem
    relaxed = [f for f in FLAGS if f not in ("-Wconversion", "-Wshadow")]
    subprocess.run(
        [build.compiler, *relaxed, *build.extra, str(source), *objects, "-lm", "-o", str(program)], check=True
    )
    return subprocess.run([*build.runner, str(program)], capture_output=True, text=True, timeout=600, cwd=folder)


@pytest.mark.parametrize("source", sorted(HERE.glob("test_*.c")), ids=lambda p: p.stem)
def test_program(source: Path, build: Build, library: list[str], tmp_path: Path) -> None:
    """Build the program, run it, and let it report."""
    result = run(build, source, library, tmp_path)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " 0 failed" in result.stdout


MACHINE = """
#include <stdint.h>
#include <stdio.h>
#include "fm_bits.h"
int main(void) { (void)printf("%u %d", (unsigned)sizeof(void *), fm_little_endian()); return 0; }
"""


def test_the_machines_are_what_they_are_here_for(build: Build, tmp_path: Path) -> None:
    """Else a test on a machine of the other byte order would show nothing."""
    source = tmp_path / "machine.c"
    source.write_text(MACHINE)
    host = f"{struct.calcsize('P')} {int(sys.byteorder == 'little')}"
    expected = {"powerpc": "4 0", "arm": "4 1"}.get(build.name, host)
    assert run(build, source, [], tmp_path).stdout == expected
