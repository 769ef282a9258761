# SPDX-License-Identifier: Apache-2.0
"""portable.c says the same, to the bit, on this machine and by QEMU on ARM, on PowerPC (highest byte first), and on an
ATmega2560, whose int has 16 bits and whose floating point is avr-libc's.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOLDEN = sorted((ROOT / "tests/interop/golden").glob("*/*.fmo"))
CORE = ("codec", "crc32", "tensor", "encoding", "serial", "serial_rx", "serial_tx", "serial_state", "cobs")
SOURCES = [f"csdk/src/fm_{name}.c" for name in CORE]
SOURCES += [
    "csdk/train/fm_train.c",
    "csdk/train/fm_train_init.c",
    "csdk/train/fm_train_math.c",
    "csdk/train/fm_train_model.c",
    "csdk/train/fm_train_query.c",
    "tests/csdk/portable.c",
]
INCLUDES = [f"-I{ROOT / folder}" for folder in ("csdk/include", "csdk/src")]
# Without contraction: PowerPC would fuse multiplications and additions, which rounds once instead of twice.
FLAGS = ["-std=gnu99", "-Os", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-DFM_SERIAL_PAYLOAD=64"]


@dataclass(frozen=True)
class Machine:
    """A compiler, and what runs its programs. One that does not end by itself is stopped after its last line."""

    compiler: tuple[str, ...]
    runner: tuple[str, ...] = ()


HOST = Machine(("gcc",))
MACHINES = {
    "arm": Machine(("arm-linux-gnueabihf-gcc",), ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf")),
    "powerpc": Machine(("powerpc-linux-gnu-gcc",), ("qemu-ppc", "-L", "/usr/powerpc-linux-gnu")),
    "avr": Machine(
        ("avr-gcc", "-mmcu=atmega2560"),
        ("timeout", "300", "qemu-system-avr", "-M", "mega2560", "-nographic", "-monitor", "none", "-serial", "stdio",
         "-bios"),
    ),
}  # fmt: skip


def said(machine: Machine, folder: Path) -> list[str]:
    """Compile the program and return its lines up to the last."""
    messages = b"".join(len(m).to_bytes(2, "little") + m for m in (f.read_bytes() for f in GOLDEN))
    text = ",".join(map(str, messages))
    (folder / "golden.h").write_text(f"static const uint8_t golden[] PROGMEM = {{{text}}};\n")
    program = folder / "portable.elf"
    command = [*machine.compiler, *FLAGS, *INCLUDES, f"-I{folder}", *(str(ROOT / s) for s in SOURCES)]
    subprocess.run([*command, "-o", str(program)], check=True)
    lines: list[str] = []
    with subprocess.Popen([*machine.runner, str(program)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.decode().strip())
            if lines[-1] == "done":
                break
        process.terminate()
    return lines


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What it says on this machine."""
    return said(HOST, tmp_path_factory.mktemp("here"))


def test_it_says_what_it_should(here: list[str]) -> None:
    assert here[0] == f"messages {len(GOLDEN)}"
    figures = dict(line.rsplit(" ", 1) for line in here if line != "done")
    assert {
        "complete": "3",
        "received": "900",
        "as sent": "1",
        "trainer": "0",
        "steps": "50",
    }.items() <= figures.items()
    assert int(figures["went back"]) > 0
    assert here[-1] == "done"


@pytest.mark.parametrize("name", MACHINES)
def test_it_says_the_same_elsewhere(name: str, here: list[str], tmp_path: Path) -> None:
    assert said(MACHINES[name], tmp_path) == here
