# SPDX-License-Identifier: Apache-2.0
"""Run the figures: all of them, or those named. `run.py [fold] [rounds] ...`."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

FIGURES = ("fold", "rounds", "wire_bytes", "memory", "quadratics", "simulate", "stragglers", "selection", "submodels")


def processor() -> str:
    """Its name, where Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> int:
    names = sys.argv[1:] or list(FIGURES)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    print(f"{processor()}, Python {platform.python_version()}, {platform.system()} {platform.release()}", flush=True)
    here = Path(__file__).resolve().parent
    failed = [name for name in names if subprocess.run([sys.executable, here / f"{name}.py"], check=False).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
