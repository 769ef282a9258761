# SPDX-License-Identifier: Apache-2.0
"""Flash, RAM and stack of the device library on a Cortex-M0+, and the budgets they are held to.

Compiles every file of csdk/src and csdk/train at -Os with all warnings as errors. Flash is code plus constants plus
initial values; RAM is static, and is zero since all memory is the caller's. Stack is the deepest path through the call
graph that the compiler reports, without what the application's own callbacks take.

Usage: size.py [--json] [--cc COMPILER]. Exit code 1: a warning, a budget exceeded, static RAM, or unbounded stack.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CSDK = Path(__file__).resolve().parent.parent
OPTIONS = ["-mcpu=cortex-m0plus", "-mthumb", "-Os", "-std=c99", "-ffunction-sections", "-fdata-sections"]
WARNINGS = ["all", "extra", "conversion", "shadow", "undef", "strict-prototypes", "error"]
FLAGS = [*OPTIONS, "-pedantic", *(f"-W{warning}" for warning in WARNINGS)]
INCLUDES = [f"-I{CSDK / folder}" for folder in ("include", "src", "train")]

# A module is what a firmware takes or leaves; a file belongs to the first whose prefix fits.
MODULES = {
    "mqtt": ("fm_mqtt",),
    "serial": ("fm_serial", "fm_cobs"),
    "client": ("fm_client", "fm_tensor", "fm_encoding"),
    "codec": ("fm_codec", "fm_wire", "fm_crc32", "fm_verify"),
    "train": ("fm_train", "fm_nn"),
}
BUDGETS = {"codec + client + MQTT": (("codec", "client", "mqtt"), 12 * 1024)}
BUDGETS["codec + client + serial"] = (("codec", "client", "serial"), 8 * 1024)
STRUCTS = {
    "fm_client_t": "fedmote/fm_client.h",
    "fm_mqtt_t": "fedmote/fm_mqtt.h",
    "fm_serial_t": "fedmote/fm_serial.h",
}
STATE_BUDGET = 768
STACK_BUDGET = 512


@dataclass
class Size:
    """Bytes in flash and of static RAM."""

    flash: int = 0
    ram: int = 0

    def add(self, other: Size) -> None:
        """Sum up in place."""
        self.flash += other.flash
        self.ram += other.ram


@dataclass
class Report:
    """All figures, in bytes."""

    files: dict[str, Size] = field(default_factory=dict)
    modules: dict[str, Size] = field(default_factory=dict)
    structs: dict[str, int] = field(default_factory=dict)
    stacks: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def module_of(name: str) -> str:
    """The module that a source file belongs to."""
    for module, prefixes in MODULES.items():
        if name.startswith(prefixes):
            return module
    return "other"


def compile_file(cc: str, source: Path, output: Path) -> None:
    """Compile one file, with its call graph beside the object."""
    subprocess.run([cc, *FLAGS, *INCLUDES, "-fcallgraph-info=su", "-c", source, "-o", output], check=True)


def object_size(cc: str, file: Path) -> Size:
    """Sections of an object file."""
    text = subprocess.run([cc.replace("gcc", "size"), file], check=True, capture_output=True, text=True).stdout
    code, data, bss = (int(value) for value in text.splitlines()[1].split()[:3])
    return Size(code + data, data + bss)


def struct_sizes(cc: str, folder: Path) -> dict[str, int]:
    """Sizes of the public structs, read off the symbol table of arrays that are as long."""
    present = {name: header for name, header in STRUCTS.items() if (CSDK / "include" / header).exists()}
    probe = folder / "structs.c"
    lines = [f'#include "{header}"' for header in present.values()]
    lines += [f"char probe_{name}[sizeof({name})];" for name in present]
    probe.write_text("\n".join(lines))
    output = folder / "structs.o"
    done = subprocess.run(
        [cc, *FLAGS, *INCLUDES, "-c", probe, "-o", output], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {}
    symbols = subprocess.run([cc.replace("gcc", "nm"), "-S", output], check=True, capture_output=True, text=True).stdout
    return {name: int(size, 16) for size, name in re.findall(r"^\S+ (\S+) \S probe_(\S+)$", symbols, re.MULTILINE)}


def measure(cc: str) -> Report:
    """Compile everything and collect the figures."""
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sorted([*CSDK.glob("src/*.c"), *CSDK.glob("train/*.c")]):
            output = folder / (source.stem + ".o")
            try:
                compile_file(cc, source, output)
            except subprocess.CalledProcessError:
                report.faults.append(f"{source.name} does not compile without warnings")
                continue
            size = object_size(cc, output)
            report.files[source.name] = size
            report.modules.setdefault(module_of(source.name), Size()).add(size)
            if size.ram:
                report.faults.append(f"{source.name} has {size.ram} bytes of static RAM")
        report.structs = struct_sizes(cc, folder)
    for title, (modules, budget) in BUDGETS.items():
        used = sum(report.modules.get(module, Size()).flash for module in modules)
        if used > budget:
            report.faults.append(f"{title}: {used} bytes of flash, budget {budget}")
    for link in ("fm_mqtt_t", "fm_serial_t"):
        used = report.structs.get("fm_client_t", 0) + report.structs.get(link, 0)
        if used > STATE_BUDGET:
            report.faults.append(f"fm_client_t + {link}: {used} bytes of RAM, budget {STATE_BUDGET}")
    return report


def show(report: Report) -> None:
    """Print for a person."""
    print("Cortex-M0+, -Os                  flash    RAM")
    for module, size in report.modules.items():
        print(f"  {module:<28}{size.flash:>8}{size.ram:>7}")
        for name, part in report.files.items():
            if module_of(name) == module:
                print(f"    {name:<26}{part.flash:>8}{part.ram:>7}")
    for title, (modules, budget) in BUDGETS.items():
        used = sum(report.modules.get(module, Size()).flash for module in modules)
        print(f"{title:<30}{used:>8}  of {budget}")
    for name, size in report.structs.items():
        print(f"sizeof({name}){'':<{22 - len(name)}}{size:>8}")
    for fault in report.faults:
        print(f"OVER BUDGET: {fault}")


def main() -> int:
    """Entry of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--cc", default="arm-none-eabi-gcc", help="cross compiler")
    parser.add_argument("--strict", action="store_true", help="fail when a budget is exceeded")
    options = parser.parse_args()
    report = measure(options.cc)
    if options.json:
        print(json.dumps(report, default=vars, indent=2))
    else:
        show(report)
    return 1 if options.strict and report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
