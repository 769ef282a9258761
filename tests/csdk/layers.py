# SPDX-License-Identifier: Apache-2.0
"""The order of C files: each internal header lists its files, and a file may call only files below it in that list."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FLAGS = ("-std=c99", "-O0", "-c", "-fno-inline", "-DFM_WITH_QUERY=1")  # all of the code


def listed(header: Path) -> list[str]:
    """The files that an internal header lists in its first comment, the highest first."""
    comment = re.search(r"/\* Internal:.*?\*/", header.read_text(), re.DOTALL)
    return re.findall(r"^ \* (fm_\w+\.c) ", comment.group(), re.MULTILINE) if comment else []


def symbols(source: Path, includes: Iterable[Path], folder: Path) -> tuple[set[str], set[str]]:
    """The functions that a file defines for others, and those that it calls of others."""
    output = folder / f"{source.stem}.o"
    subprocess.run(["gcc", *FLAGS, *(f"-I{path}" for path in includes), source, "-o", output], check=True)
    lines = subprocess.run(["nm", output], capture_output=True, text=True, check=True).stdout.splitlines()
    defined = {line.split()[-1] for line in lines if line.split()[-2] == "T"}
    called = {line.split()[-1] for line in lines if line.split()[-2] == "U"}
    return defined, called


def circles(sources: Iterable[Path], includes: Iterable[Path], folder: Path) -> list[str]:
    """Return the files of one circle of calls, if there is any."""
    found = {source.name: symbols(source, list(includes), folder) for source in sources}
    home = {name: file for file, (defined, _) in found.items() for name in defined}
    calls = {file: {home[name] for name in called if name in home} for file, (_, called) in found.items()}
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def calls_up(order: list[str], sources: Iterable[Path], includes: Iterable[Path], folder: Path) -> list[str]:
    """Each call from a listed file to a file above it."""
    found = {source.name: symbols(source, list(includes), folder) for source in sources}
    home = {name: file for file, (defined, _) in found.items() for name in defined}
    return sorted(
        f"{file} calls {name} of {home[name]}"
        for file in order
        for name in found[file][1]
        if home.get(name) in order and order.index(home[name]) < order.index(file)
    )
