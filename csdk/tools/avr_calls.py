# SPDX-License-Identifier: Apache-2.0
"""The call graph of AVR code. Debian's avr-gcc is 5.4, which writes none: calls are read off the assembly
(-S -gdwarf-2), frames off -fstack-usage, which counts the return address and what is pushed for callees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from stack import Graph, source_lines

FILE = re.compile(r'\t\.file (\d+) "([^"]+)"')
FUNCTION = re.compile(r"\t\.type\t(\S+), @function")
PLACE = re.compile(r"\t\.loc (\d+) (\d+)")
# Jumps to another function count too: they are tail calls.
DIRECT = re.compile(r"\t(?:r?call|r?jmp) ([A-Za-z_][\w.]*)$")
POINTER = re.compile(r"\te?i(?:call|jmp)\b")


@dataclass
class Calls:
    """The contents of one file: its functions, their calls, and the lines at which they call through pointers."""

    functions: list[str] = field(default_factory=list)
    direct: list[tuple[str, str]] = field(default_factory=list)
    through: list[tuple[str, str, int]] = field(default_factory=list)


def calls_of(assembly: str) -> Calls:
    """Read the compiler's output for one file."""
    calls, files = Calls(), dict(FILE.findall(assembly))
    name, place = "", ("", 0)
    for line in assembly.splitlines():
        if found := FUNCTION.match(line):
            name = found.group(1)
            calls.functions.append(name)
        elif found := PLACE.match(line):
            place = (files[found.group(1)], int(found.group(2)))
        elif POINTER.match(line):
            calls.through.append((name, *place))
        elif found := DIRECT.match(line):
            calls.direct.append((name, found.group(1)))
    return calls


def called_on(path: str, line: int, indirect: list[tuple[str, str]]) -> str:
    """The one call in the statement from a line on that a pattern of `indirect` fits; the line when it is not one."""
    lines = source_lines(path)[line - 1 :]
    end = next((i for i, text in enumerate(lines) if re.search(r"[;{]", text)), 0)
    text = " ".join(lines[: end + 1])
    fits = {c for c in re.findall(r"[\w.>-]+(?=\()", text) if any(re.search(p, c) for p, _ in indirect)}
    return fits.pop() if len(fits) == 1 else lines[0].strip()


def _function(said: str, names: dict[str, str]) -> str:
    """Return the name of the function that a `.su` file means; of a clone it may leave out the last number."""
    return names[said] if said in names else next(names[name] for name in names if name.startswith(f"{said}."))


def read(files: list[Path], indirect: list[tuple[str, str]], application: str) -> Graph:
    """Read the graph off `.s` files with their `.su`; static functions are named `file.c:name`. For the rest see
    stack.Graph.read.
    """
    graph = Graph()
    through: list[tuple[str, str]] = []
    for file in files:
        assembly = file.read_text()
        calls = calls_of(assembly)
        public = set(re.findall(r"^\.global\t(\S+)$", assembly, re.MULTILINE))
        names = {n: n if n in public else f"{file.stem}.c:{n}" for n in calls.functions}
        for line in file.with_suffix(".su").read_text().splitlines():
            where, size, kind = line.split("\t")
            name = _function(where.rsplit(":", 1)[1], names)
            graph.frames[name] = int(size)
            if kind not in ("static", "dynamic,bounded"):
                graph.faults[name] = f"the frame of {name} is {kind}"
        for source, target in calls.direct:
            graph.calls[names[source]].add(names.get(target, target))
        through += [(names[source], called_on(path, number, indirect)) for source, path, number in calls.through]
    for source, called in through:
        graph.resolve(source, called, indirect, application)
    return graph
