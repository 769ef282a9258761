# SPDX-License-Identifier: Apache-2.0
"""Memory of one device's process after it took part in rounds, against Flower's SuperNode; sizes of the C structs.

RSS and PSS (Linux, smaps_rollup) are read between rounds: of a device in C (bench/device.c with the library), of the
same C client run from Python, and of a SuperNode with its helper processes after a run of the app in bench/flwr/app.
PSS divides a page among the processes that map it. sizeof comes from the compilers for this machine and a Cortex-M0+.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from common import BENCH, FEDERATION, ROOT, flwr_python, note, save, table
from federation import process, serve

from fedmote.links.broker import private_broker
from fedmote.rounds.record import Record

CSDK = ROOT / "csdk"
INCLUDES = [f"-I{CSDK / part}" for part in ("include", "src", "train", "port/posix", "port/socket")]
STRUCTS = {"fm_client_t": "fm_client.h", "fm_mqtt_t": "fm_mqtt.h", "fm_serial_t": "fm_serial.h"}
ARM = ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb", "-Os"]
ROUNDS = 3

Usage = dict[str, int]
"""KiB, by `rss` and `pss`."""


def usage(pid: int) -> Usage:
    """Return the present memory of one process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name.lower(): int(kib) for name, kib in re.findall(r"^(Rss|Pss):\s+(\d+)", text, re.M)}


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def device_usage(command: list[str], broker: str) -> Usage:
    """Return the memory of a device's process after its last but one round."""
    seen: list[Usage] = []
    with process(command) as running:

        def committed(record: Record) -> None:
            seen.append(usage(running.pid))

        asyncio.run(serve(broker, ROUNDS, on_round=committed))
    return seen[-1]


def build(folder: Path) -> Path:
    """Build bench/device.c with the whole library, as firmware for this machine."""
    sources = [
        str(file)
        for part in ("src", "train", "port/posix", "port/socket")
        for file in sorted((CSDK / part).glob("*.c"))
    ]
    output = folder / "device"
    command = [os.environ.get("CC", "cc"), "-std=c99", "-Os", *INCLUDES, str(BENCH / "device.c"), *sources]
    subprocess.run([*command, "-o", str(output)], check=True)
    return output


def struct_sizes(compiler: list[str]) -> dict[str, int]:
    """Return the sizes of the public structs, read from the symbols of an object file."""
    present = {name: header for name, header in STRUCTS.items() if (CSDK / "include" / "fedmote" / header).exists()}
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "sizes.c", Path(name) / "sizes.o"
        lines = [f'#include "fedmote/{header}"' for header in present.values()]
        lines += [f"char probe_{struct}[sizeof({struct})];" for struct in present]
        source.write_text("\n".join(lines) + "\n")
        subprocess.run([*compiler, "-fno-common", *INCLUDES, "-c", str(source), "-o", str(output)], check=True)
        symbols = subprocess.run(["nm", "-S", str(output)], check=True, capture_output=True, text=True).stdout
    return {struct: int(size, 16) for size, struct in re.findall(r"^\S+ (\S+) \S probe_(\S+)$", symbols, re.M)}


def flower_usage() -> tuple[Usage, Usage]:
    """Return the memory of a SuperNode, alone and with its helpers, after two rounds on two nodes."""
    from flower import deployment

    with deployment(2) as running:
        running.run(2)
        node = running.supernodes[0]
        alone = usage(node)
        total = dict(alone)
        for pid in descendants(node):
            try:
                for name, value in usage(pid).items():
                    total[name] += value
            except (FileNotFoundError, ProcessLookupError, TypeError):
                continue  # a client app of the last round that just ended
        return alone, total


def measure() -> dict[str, Usage]:
    """Return the memory of each kind of process."""
    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-bench-")))
        device = build(folder)
        broker = stack.enter_context(private_broker())
        host, port = urlsplit(broker).hostname, urlsplit(broker).port
        found["device in C"] = device_usage([str(device), str(host), str(port), FEDERATION], broker)
        found["device in Python"] = device_usage([sys.executable, str(BENCH / "devices.py"), broker, "0", "1"], broker)
    if flwr_python() is not None:
        found["flwr SuperNode"], found["flwr SuperNode and its helpers"] = flower_usage()
    return found


def main() -> None:
    found = measure()
    ratios: dict[str, float] = {}
    rows: list[tuple[str, ...]] = [("process", "RSS KiB", "PSS KiB", "RSS, / C", "RSS, / Python")]
    for name, kib in found.items():
        to_c, to_python = (kib["rss"] / found[f"device in {other}"]["rss"] for other in ("C", "Python"))
        ratios |= {f"RSS, {name} / device in C": to_c, f"RSS, {name} / device in Python": to_python}
        rows.append((name, str(kib["rss"]), str(kib["pss"]), f"{to_c:.1f}", f"{to_python:.2f}"))
    table("Memory of one device", rows)
    note("The C device's RSS is mostly libc's and the loader's pages, which all processes share: see its PSS.")
    sizes = {"this machine": struct_sizes([os.environ.get("CC", "cc")])}
    if shutil.which(ARM[0]):
        sizes["Cortex-M0+"] = struct_sizes(ARM)
    rows = [("sizeof, bytes", *sizes)]
    rows += [(name, *(str(of[name]) for of in sizes.values())) for name in sizes["this machine"]]
    rows.append(("fm_client_t + fm_mqtt_t", *(str(of["fm_client_t"] + of["fm_mqtt_t"]) for of in sizes.values())))
    table("State of a device besides its two buffers and the model", rows)
    save("memory", {"kib": found, "ratios": ratios, "sizeof": sizes})


if __name__ == "__main__":
    main()
