# SPDX-License-Identifier: Apache-2.0
"""Each tests/csdk/test_*.c is a program of checks, run under AddressSanitizer and UndefinedBehaviorSanitizer, with
counters for gcov, and by QEMU on processors of 32 bits: ARM, and PowerPC, whose highest byte comes first.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = ("csdk/src", "csdk/train", "csdk/port/posix", "csdk/port/socket")
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


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs as many programs at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield threads


def compiled(build: Build, source: Path) -> str:
    """One of the library's objects."""
    target = ROOT / "build" / build.name / f"{source.stem}.o"
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([build.compiler, *FLAGS, *build.extra, "-c", str(source), "-o", str(target)], check=True)
    return str(target)


@pytest.fixture(scope="module")
def libraries(pool: ThreadPoolExecutor) -> dict[str, list[str]]:
    """The library's objects, by build."""
    sources = sorted(source for folder in FOLDERS for source in (ROOT / folder).glob("*.c"))
    under_way = {way: [pool.submit(compiled, build, source) for source in sources] for way, build in BUILDS.items()}
    return {way: [one.result() for one in objects] for way, objects in under_way.items()}


def run(build: Build, source: Path, objects: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a program with the library and run it in a folder."""
    program = ROOT / "build" / build.name / source.stem
    relaxed = [f for f in FLAGS if f not in ("-Wconversion", "-Wshadow")]
    subprocess.run(
        [build.compiler, *relaxed, *build.extra, str(source), *objects, "-lm", "-o", str(program)], check=True
    )
    return subprocess.run([*build.runner, str(program)], capture_output=True, text=True, timeout=600, cwd=folder)


@pytest.mark.parametrize("source", sorted(HERE.glob("test_*.c")), ids=lambda p: p.stem)
def test_program(source: Path, pool: ThreadPoolExecutor, libraries: dict[str, list[str]], tmp_path: Path) -> None:
    """Build the program in every way, run it, and let it report."""
    runs = {}
    for way, build in BUILDS.items():
        folder = tmp_path / way
        folder.mkdir()
        runs[way] = pool.submit(run, build, source, libraries[way], folder)
    for way, under_way in runs.items():
        result = under_way.result()
        assert result.returncode == 0, f"{way}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
        assert " 0 failed" in result.stdout, f"{way}: {result.stdout[-4000:]}"


MACHINE = """
#include <stdint.h>
#include <stdio.h>
#include "fm_bits.h"
int main(void) { (void)printf("%u %d", (unsigned)sizeof(void *), fm_little_endian()); return 0; }
"""


@pytest.mark.parametrize("build", BUILDS.values(), ids=list(BUILDS))
def test_the_machines_are_what_they_are_here_for(build: Build, tmp_path: Path) -> None:
    """Else a test on a machine of the other byte order would show nothing."""
    source = tmp_path / "machine.c"
    source.write_text(MACHINE)
    host = f"{struct.calcsize('P')} {int(sys.byteorder == 'little')}"
    expected = {"powerpc": "4 0", "arm": "4 1"}.get(build.name, host)
    assert run(build, source, [], tmp_path).stdout == expected
