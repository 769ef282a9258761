# SPDX-License-Identifier: Apache-2.0
"""Shared by all figures: the measured model, medians, tables, results, and Flower's virtual environment."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"
FLWR_VENV = ROOT / "build" / "bench-venv"

WIDTHS = (64, 32, 10)
"""The network of every figure: 2,410 float32 parameters, 9,640 bytes."""
EXAMPLES = 36
FEDERATION = "bench"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def microseconds(call: Callable[[], object], repeats: int) -> float:
    """Return the mean time of a call over one batch, in microseconds."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats * 1e6


def interleave(what: Mapping[str, Callable[[], float]], times: int) -> dict[str, float]:
    """Alternate the measurements, A B C A B C ..., and return their medians. The first turn does not count."""
    taken: dict[str, list[float]] = {name: [] for name in what}
    for turn in range(times + 1):
        for name, measure in what.items():
            value = measure()
            if turn:
                taken[name].append(value)
    return {name: median(values) for name, values in taken.items()}


def table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Print a title and rows: the first column left-aligned, the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    print(f"\n{title}")
    for row in cells:
        parts = [cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        print("  " + "  ".join(parts).rstrip())
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a remark below a table."""
    print(f"  {text}", flush=True)


def save(name: str, figures: Mapping[str, Any]) -> None:
    """Write a figure's numbers to bench/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


def flwr_python() -> Path | None:
    """Return the Python of Flower's virtual environment, made at the first call; None, with a note: it failed."""
    python = FLWR_VENV / "bin" / "python"
    done = FLWR_VENV / ".installed"
    wanted = (BENCH / "flwr" / "requirements.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return python
    print("Installing Flower into build/bench-venv ...", flush=True)
    commands = (
        [sys.executable, "-m", "venv", str(FLWR_VENV)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
         str(BENCH / "flwr" / "requirements.txt")],
    )  # fmt: skip
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = (result.stderr or result.stdout).strip().splitlines()
            print(f"Flower could not be installed, so its figures are left out: {reason[-1] if reason else '?'}")
            return None
    done.write_text(wanted)
    return python


def flwr_environment(home: Path) -> dict[str, str]:
    """Return the environment for Flower's commands: its own home and venv, no telemetry, no check for updates."""
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{FLWR_VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
