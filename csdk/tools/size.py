# SPDX-License-Identifier: Apache-2.0
"""Flash, RAM and stack of the device library on microcontrollers, and the budgets that the Cortex-M0+ is held to.

Compiles every file of csdk/src and csdk/train at -Os with all warnings as errors. Flash is code plus constants plus
initial values; RAM is static, and holds no variable since all memory is the caller's. (An AVR cannot read flash as it
reads RAM: its compiler copies constants there.) Stack is the deepest path through the call graph (csdk/tools/stack.py),
in which calls through pointers go where INDIRECT says; what the application's own functions take comes on top.

Usage: size.py [--target NAME ...] [--json | --markdown] [--strict]. Exit code 1: a warning, a variable in static RAM,
or stack that has no bound; with --strict also a budget exceeded.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO

import avr_calls
from stack import Graph, Unbounded

CSDK = Path(__file__).resolve().parent.parent
OPTIONS = ["-Os", "-std=c99", "-ffunction-sections", "-fdata-sections", "-fno-common"]
WARNINGS = ["all", "extra", "conversion", "shadow", "undef", "strict-prototypes", "error"]
FLAGS = [*OPTIONS, "-pedantic", *(f"-W{warning}" for warning in WARNINGS)]


@dataclass(frozen=True)
class Target:
    """A processor and its compiler."""

    title: str
    cc: str
    machine: tuple[str, ...]
    constants_in_ram: bool = False
    call_graph: bool = True  # whether the compiler writes call graphs, as gcc does from version 10 on


TARGETS = {
    "m0plus": Target("Cortex-M0+", "arm-none-eabi-gcc", ("-mcpu=cortex-m0plus", "-mthumb")),
    "m3": Target("Cortex-M3", "arm-none-eabi-gcc", ("-mcpu=cortex-m3", "-mthumb")),
    "m4f": Target(
        "Cortex-M4F", "arm-none-eabi-gcc", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
    ),
    "rv32imac": Target(
        "RV32IMAC", "riscv64-unknown-elf-gcc", ("-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs")
    ),
    "avr": Target("ATmega2560", "avr-gcc", ("-mmcu=atmega2560",), constants_in_ram=True, call_graph=False),
}
BUDGETED = TARGETS["m0plus"]
INCLUDES = [f"-I{CSDK / folder}" for folder in ("include", "src", "train")]

# A firmware links a module whole or not at all; a file belongs to the first module whose prefix matches.
MODULES = {
    "codec": ("fm_codec", "fm_wire", "fm_crc32", "fm_verify"),
    "client": ("fm_client", "fm_tensor", "fm_encoding"),
    "mqtt": ("fm_mqtt",),
    "serial": ("fm_serial", "fm_cobs"),
    "keep": ("fm_keep",),
    "train": ("fm_train", "fm_nn"),
}
MODULE_TITLES = {"mqtt": "MQTT link", "serial": "serial link", "keep": "keep (flash)", "train": "trainer"}
BUDGETS = {"codec + client + MQTT": (("codec", "client", "mqtt"), 12 * 1024)}
BUDGETS["codec + client + serial"] = (("codec", "client", "serial"), 8 * 1024)
STRUCTS = {
    "fm_client_t": "fedmote/fm_client.h",
    "fm_mqtt_t": "fedmote/fm_mqtt.h",
    "fm_serial_t": "fedmote/fm_serial.h",
    "fm_keep_t": "fedmote/fm_keep.h",
    "fm_trainer_t": "fedmote/fm_train.h",
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
    (r"\bkeeper(\.|->)api->(\w+)$", r"*keep_\2"),
    (r"\bstorage->(read|program|erase)$", APPLICATION),
    (r"\bsink->(\w+)$", r"fm_client_rx.c:sink_\1"),
    (r"\bout\.read$", "fm_client_update.c:read_chunk"),
]
KEEPER_LEFT_OUT = (r"\bkeeper(\.|->)api->", APPLICATION)
# Entry points: the link, whether fm_keep is used, and the library's functions that the application calls.
ENTRIES = {
    "codec": ("", False, ["fm_message_decode", "fm_message_encode"]),
    "client, with your own link": ("", False, ["fm_client_init", "fm_client_poll", "fm_client_withdraw"]),
    "MQTT link": ("mqtt", False, ["fm_mqtt_init", "fm_mqtt_close"]),
    "client over MQTT": ("mqtt", False, ["fm_client_poll"]),
    "client over MQTT, with fm_keep": ("mqtt", True, ["fm_client_poll"]),
    "serial link": ("serial", False, ["fm_serial_init"]),
    "client over serial": ("serial", False, ["fm_client_poll"]),
    "client over serial, with fm_keep": ("serial", True, ["fm_client_poll"]),
    "client's start, with fm_keep": ("", True, ["fm_client_init"]),
    "trainer": ("", False, ["fm_trainer_begin", "fm_trainer_step", "fm_trainer_evaluate"]),
}
STACK_BUDGETED = tuple(title for title in ENTRIES if title == "codec" or title.startswith("client over"))


@dataclass
class Size:
    """Bytes in flash and of static RAM, and how many of the latter are variables."""

    flash: int = 0
    ram: int = 0
    variables: int = 0

    def add(self, other: Size) -> None:
        """Add in place."""
        self.flash += other.flash
        self.ram += other.ram
        self.variables += other.variables


@dataclass
class Report:
    """All figures of a target, in bytes."""

    target: Target
    files: dict[str, Size] = field(default_factory=dict)
    modules: dict[str, Size] = field(default_factory=dict)
    structs: dict[str, int] = field(default_factory=dict)
    stacks: dict[str, int] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # for which no exception applies
    excesses: list[str] = field(default_factory=list)  # over a budget


def module_of(name: str) -> str:
    """The module that a source file belongs to."""
    for module, prefixes in MODULES.items():
        if name.startswith(prefixes):
            return module
    return "other"


def compile_file(target: Target, source: Path, output: Path) -> None:
    """Compile one file, with call graph and frame sizes next to the object."""
    command: list[str | Path] = [target.cc, *target.machine, *FLAGS, *INCLUDES, source]
    if target.call_graph:
        subprocess.run([*command, "-fcallgraph-info=su", "-c", "-o", output], check=True)
    else:
        subprocess.run([*command, "-c", "-o", output], check=True)
        subprocess.run([*command, "-gdwarf-2", "-fstack-usage", "-S", "-o", output.with_suffix(".s")], check=True)


def object_size(target: Target, file: Path) -> Size:
    """Sections of an object file."""
    tool = target.cc.replace("gcc", "size")
    text = subprocess.run([tool, "-A", file], check=True, capture_output=True, text=True).stdout
    kinds = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for kind, size in re.findall(r"^\.(text|rodata|s?data|s?bss)\S*\s+(\d+)", text, re.MULTILINE):
        kinds[{"sdata": "data", "sbss": "bss"}.get(kind, kind)] += int(size)
    variables = kinds["data"] + kinds["bss"]
    constants = kinds["rodata"] if target.constants_in_ram else 0
    return Size(kinds["text"] + kinds["rodata"] + kinds["data"], variables + constants, variables)


def struct_sizes(target: Target, folder: Path) -> dict[str, int]:
    """Return the sizes of the public structs, read from the symbols of arrays of these sizes."""
    present = {name: header for name, header in STRUCTS.items() if (CSDK / "include" / header).exists()}
    probe = folder / "structs.c"
    lines = [f'#include "{header}"' for header in present.values()]
    lines += [f"char probe_{name}[sizeof({name})];" for name in present]
    probe.write_text("\n".join(lines))
    output = folder / "structs.o"
    command: list[str | Path] = [target.cc, *target.machine, *FLAGS, *INCLUDES, "-c", probe, "-o", output]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return {}
    tool = target.cc.replace("gcc", "nm")
    symbols = subprocess.run([tool, "-S", output], check=True, capture_output=True, text=True).stdout
    return {name: int(size, 16) for size, name in re.findall(r"^\S+ (\S+) \S probe_(\S+)$", symbols, re.MULTILINE)}


def measure_stack(folder: Path, report: Report) -> None:
    """Find the deepest path from every entry point."""
    for title, (link, kept, names) in ENTRIES.items():
        calls = [(p, t.format(link=link) if link or "{link}" not in t else APPLICATION) for p, t in INDIRECT]
        if not kept:
            calls.insert(0, KEEPER_LEFT_OUT)
        if report.target.call_graph:
            graph = Graph.read(sorted(folder.glob("*.ci")), calls, APPLICATION)
        else:
            graph = avr_calls.read(sorted(folder.glob("*.s")), calls, APPLICATION)
        try:
            deepest = max((graph.deepest(name) for name in names if name in graph.frames), key=lambda d: d[0])
        except Unbounded as reason:
            report.faults.append(f"stack of {title}: {reason}")
            continue
        report.stacks[title], report.paths[title] = deepest


def measure(target: Target) -> Report:
    """Compile everything and collect the figures."""
    report = Report(target)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sorted([*CSDK.glob("src/*.c"), *CSDK.glob("train/*.c")]):
            output = folder / (source.stem + ".o")
            try:
                compile_file(target, source, output)
            except subprocess.CalledProcessError:
                report.faults.append(f"{target.title}: {source.name} does not compile without warnings")
                continue
            size = object_size(target, output)
            report.files[source.name] = size
            report.modules.setdefault(module_of(source.name), Size()).add(size)
            if size.variables:
                report.faults.append(f"{target.title}: {source.name} has {size.variables} bytes of static variables")
        report.structs = struct_sizes(target, folder)
        if not report.faults:
            measure_stack(folder, report)
    if target == BUDGETED:
        compare_with_budgets(report)
    return report


def used_flash(report: Report, modules: tuple[str, ...]) -> int:
    """Flash of some modules together."""
    return sum(report.modules.get(module, Size()).flash for module in modules)


def compare_with_budgets(report: Report) -> None:
    """Record the figures that exceed their budget."""
    for title, (modules, budget) in BUDGETS.items():
        used = used_flash(report, modules)
        if used > budget:
            report.excesses.append(f"{title}: {used} bytes of flash, budget {budget}")
    for link in ("fm_mqtt_t", "fm_serial_t"):
        used = report.structs.get("fm_client_t", 0) + report.structs.get(link, 0)
        if used > STATE_BUDGET:
            report.excesses.append(f"fm_client_t + {link}: {used} bytes of RAM, budget {STATE_BUDGET}")
    for title in STACK_BUDGETED:
        used = report.stacks.get(title, 0)
        if used > STACK_BUDGET:
            report.excesses.append(f"{title}: {used} bytes of stack, budget {STACK_BUDGET}")


def show(report: Report) -> None:
    """Print the target that has budgets, file by file."""
    print(f"{report.target.title}, -Os{'':<17}flash    RAM")
    for module, size in sorted(report.modules.items(), key=lambda item: list(MODULES).index(item[0])):
        print(f"  {module:<28}{size.flash:>8}{size.ram:>7}")
        for name, part in report.files.items():
            if module_of(name) == module:
                print(f"    {name:<26}{part.flash:>8}{part.ram:>7}")
    for title, (modules, budget) in BUDGETS.items():
        print(f"{title:<30}{used_flash(report, modules):>8}  of {budget}")
    for name, taken in report.structs.items():
        print(f"sizeof({name}){'':<{22 - len(name)}}{taken:>8}")
    print(f"stack, at most; the application's own comes on top{'':<3}of {STACK_BUDGET}")
    for title, bytes_ in report.stacks.items():
        print(f"  {title:<34}{bytes_:>4}  {' > '.join(report.paths[title])}")


def rows_of(report: Report) -> dict[str, str]:
    """Return a target's column of the table; "not measured" for a missing figure."""
    rows = {f"flash: {MODULE_TITLES.get(m, m)}": str(used_flash(report, (m,))) for m in MODULES}
    rows |= {f"flash: {title}": str(used_flash(report, modules)) for title, (modules, _) in BUDGETS.items()}
    rows["static RAM, all modules"] = str(sum(size.ram for size in report.modules.values()))
    rows |= {f"RAM: {name}": str(report.structs.get(name, "not measured")) for name in STRUCTS}
    rows |= {f"stack: {title}": str(report.stacks.get(title, "not measured")) for title in ENTRIES}
    return rows


def table(reports: list[Report], markdown: bool) -> str:
    """All targets side by side."""
    columns = [rows_of(report) for report in reports]
    lines = [["bytes, -Os", *(report.target.title for report in reports)]]
    lines += [[title, *(column[title] for column in columns)] for title in columns[0]]
    if markdown:
        lines.insert(1, ["---", *("---:" for _ in reports)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/size.md")
    parser.add_argument("--strict", action="store_true", help="fail when a budget is exceeded")
    options = parser.parse_args()
    reports = [measure(TARGETS[name]) for name in options.target or TARGETS]
    if options.json:
        print(json.dumps(reports, default=vars, indent=2))
    elif options.markdown:
        print(table(reports, markdown=True))
    else:
        show_all(reports)
    return conclude(reports, sys.stderr if options.json or options.markdown else sys.stdout, options.strict)


def show_all(reports: list[Report]) -> None:
    """Print the target that has budgets in full, and all targets side by side."""
    for report in reports:
        if report.target == BUDGETED:
            show(report)
            print()
    print(table(reports, markdown=False))


def conclude(reports: list[Report], out: TextIO, strict: bool) -> int:
    """Print faults and exceeded budgets; return the exit code."""
    faults = list(chain.from_iterable(report.faults for report in reports))
    excesses = list(chain.from_iterable(report.excesses for report in reports))
    for fault in faults:
        print(f"WRONG: {fault}", file=out)
    for excess in excesses:
        print(f"OVER BUDGET: {excess}", file=out)
    return 1 if faults or (strict and excesses) else 0


if __name__ == "__main__":
    sys.exit(main())
