# SPDX-License-Identifier: Apache-2.0
"""Flash, RAM and stack of the device library on a Cortex-M0+, and the budgets they are held to.

Compiles every file of csdk/src and csdk/train at -Os with all warnings as errors. Flash is code plus constants plus
initial values; RAM is static, and is zero since all memory is the caller's. Stack is the deepest path through the
compiler's call graph (csdk/tools/stack.py), in which calls through pointers go where INDIRECT says; what the
application's own functions take comes on top.

Usage: size.py [--json] [--cc COMPILER] [--strict]. Exit code 1: a warning, static RAM, or stack that has no bound; with
--strict also a budget exceeded.
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

from stack import Graph, Unbounded

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
    "keep": ("fm_keep",),
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

APPLICATION = "the application's"
# Where a call through a pointer goes, by the text of the call in the source; {link} is the link in question, "?" means
# that it need not be there. What is the application's counts as nothing.
INDIRECT = [
    (r"stream(\.|->)api->(open|read|write|close)$", APPLICATION),
    (r"\bio->(read|write)$", APPLICATION),
    (r"\b(app->\w+|step)$", APPLICATION),
    (r"\blink(\.|->)api->fetch$", "fm_{link}*.c:*fetch?"),
    (r"\blink(\.|->)api->(\w+)$", r"fm_{link}*.c:*_\2"),
    (r"\bdata(->|\.)read$", APPLICATION),
    (r"\bkeeper(\.|->)api->(\w+)$", r"fm_keep.c:keep_\2"),
    (r"\bstorage->(read|program|erase)$", APPLICATION),
    (r"\bsink->(\w+)$", r"fm_client_rx.c:sink_\1"),
    (r"\bout\.read$", "fm_client_update.c:read_chunk"),
]
# Entry points: with which link, and which function of the library the application calls.
ENTRIES = {
    "codec": ("", ["fm_message_decode", "fm_message_encode"]),
    "client's start, with fm_keep": ("", ["fm_client_init"]),
    "client, with a link of one's own": ("", ["fm_client_poll", "fm_client_withdraw"]),
    "MQTT link": ("mqtt", ["fm_mqtt_init", "fm_mqtt_close"]),
    "client over MQTT": ("mqtt", ["fm_client_poll"]),
    "serial link": ("serial", ["fm_serial_init"]),
    "client over serial": ("serial", ["fm_client_poll"]),
    "trainer": ("", ["fm_trainer_begin", "fm_trainer_step", "fm_trainer_evaluate"]),
}
STACK_BUDGETED = ("codec", "client over MQTT", "client over serial")


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
    paths: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # that nothing excuses
    excesses: list[str] = field(default_factory=list)  # over a budget


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


def measure_stack(folder: Path, report: Report) -> None:
    """Find the deepest path from every entry point."""
    for title, (link, names) in ENTRIES.items():
        if link and not list(CSDK.glob(f"src/fm_{link}*.c")):
            continue
        calls = [(p, t.format(link=link) if link or "{" not in t else APPLICATION) for p, t in INDIRECT]
        graph = Graph.read(sorted(folder.glob("*.ci")), calls, APPLICATION)
        try:
            deepest = max((graph.deepest(name) for name in names if name in graph.frames), key=lambda d: d[0])
        except Unbounded as reason:
            report.faults.append(f"stack of {title}: {reason}")
            continue
        report.stacks[title], report.paths[title] = deepest
        if title in STACK_BUDGETED and deepest[0] > STACK_BUDGET:
            report.excesses.append(f"{title}: {deepest[0]} bytes of stack, budget {STACK_BUDGET}")


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
        if not report.faults:
            measure_stack(folder, report)
    for title, (modules, budget) in BUDGETS.items():
        used = sum(report.modules.get(module, Size()).flash for module in modules)
        if used > budget:
            report.excesses.append(f"{title}: {used} bytes of flash, budget {budget}")
    for link in ("fm_mqtt_t", "fm_serial_t"):
        used = report.structs.get("fm_client_t", 0) + report.structs.get(link, 0)
        if used > STATE_BUDGET:
            report.excesses.append(f"fm_client_t + {link}: {used} bytes of RAM, budget {STATE_BUDGET}")
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
        missing = [module for module in modules if module not in report.modules]
        print(f"{title:<30}{used:>8}  of {budget}{', without ' + missing[0] if missing else ''}")
    for name, taken in report.structs.items():
        print(f"sizeof({name}){'':<{22 - len(name)}}{taken:>8}")
    print(f"stack, at most; the application's own comes on top{'':<3}of {STACK_BUDGET}")
    for title, bytes_ in report.stacks.items():
        print(f"  {title:<34}{bytes_:>4}  {' > '.join(report.paths[title])}")
    for fault in report.faults:
        print(f"WRONG: {fault}")
    for excess in report.excesses:
        print(f"OVER BUDGET: {excess}")


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
    return 1 if report.faults or (options.strict and report.excesses) else 0


if __name__ == "__main__":
    sys.exit(main())
