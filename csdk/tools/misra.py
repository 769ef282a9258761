# SPDX-License-Identifier: Apache-2.0
"""Check csdk/src and csdk/train against MISRA C:2012, except for the deviations in csdk/MISRA.md.

Runs cppcheck with its MISRA addon and compares what it finds with the table of MISRA.md. Usage: misra.py [CPPCHECK].
Exit code 1: a violation that no row excuses, or a row that excuses nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CSDK = Path(__file__).resolve().parent.parent
FOLDERS = [CSDK / "src", CSDK / "train"]
INCLUDES = [f"-I{CSDK / folder}" for folder in ("include", "src", "train")]
OPTIONS = ["--addon=misra", "--std=c99", "--quiet", "--enable=style", "--inline-suppr"]


class Finding(NamedTuple):
    """A violation of a rule."""

    rule: str
    file: Path
    line: int


class Deviation(NamedTuple):
    """A row of MISRA.md."""

    number: str
    rule: str
    where: str

    def excuses(self, finding: Finding) -> bool:
        """Tell whether the row covers the finding."""
        if self.rule != finding.rule:
            return False
        if self.where == "marked":
            return f"/* MISRA {self.number} */" in finding.file.read_text().splitlines()[finding.line - 1]
        return self.where in ("project-wide", finding.file.name)


def deviations(text: str) -> list[Deviation]:
    """Read the table."""
    return [Deviation(*row) for row in re.findall(r"^\| (D\d+) \| ([\d.]+) \| ([^|]+?) \| \S", text, re.MULTILINE)]


def findings(cppcheck: str, sources: list[Path]) -> list[Finding]:
    """Run cppcheck."""
    template = "--template={id} {line} {file}"
    done = subprocess.run(
        [cppcheck, *OPTIONS, template, *INCLUDES, *sources], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"misra: {cppcheck} failed: {done.stdout}{done.stderr}")
    found = re.findall(r"^misra-c2012-([\d.]+) (\d+) (\S+)$", done.stderr, re.MULTILINE)
    return sorted({Finding(rule, Path(file), int(line)) for rule, line, file in found})


def complaints(found: list[Finding], rows: list[Deviation]) -> list[str]:
    """Return the problems, one line each."""
    out = [f"{f.file}:{f.line}: MISRA {f.rule}" for f in found if not any(row.excuses(f) for row in rows)]
    idle = [row for row in rows if not any(row.excuses(f) for f in found)]
    return out + [f"MISRA.md: {row.number} (rule {row.rule}) excuses nothing" for row in idle]


def main() -> int:
    """Run the command line."""
    cppcheck = sys.argv[1] if len(sys.argv) > 1 else str(Path(sys.executable).parent / "cppcheck")
    wrong = complaints(findings(cppcheck, FOLDERS), deviations((CSDK / "MISRA.md").read_text()))
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
