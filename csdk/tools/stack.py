# SPDX-License-Identifier: Apache-2.0
"""Worst-case stack from gcc's call graphs (-fcallgraph-info=su): one .ci file for each object."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

# Stack of the C library's and the compiler's functions, which have no call graph. The deepest of the string
# functions (newlib, picolibc, avr-libc) and of libgcc's division and soft floating point take 32 bytes: float division
# on Cortex-M0+ and RV32IMAC.
LIBRARY_FRAME = 40

NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]+)"')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"(?: label: "([^"]+):(\d+):(\d+)")?')
FRAME = re.compile(r"\\n(\d+) bytes \(([^)]+)\)")
INDIRECT_CALL = "__indirect_call"


class Unbounded(Exception):
    """No bound of the stack can be proven; the text says why."""


@lru_cache(maxsize=64)
def source_lines(path: str) -> list[str]:
    """Return the lines of a source file."""
    return Path(path).read_text().splitlines()


def called_text(path: str, line: int, column: int) -> str:
    """Return the called expression of the call that starts at this place in the source."""
    text = source_lines(path)[line - 1]
    # gcc points at the start of the call or at its last member; return the whole expression.
    start = column - 1
    while start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_.->"):
        start -= 1
    match = re.match(r"[\w.>-]+", text[start:])
    return match.group() if match else ""


@dataclass
class Graph:
    """Functions, their frames and their calls. Static ones are named `folder/file.c:name`, as gcc does."""

    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    faults: dict[str, str] = field(default_factory=dict)  # functions whose frame or calls are not known

    @classmethod
    def read(cls, files: list[Path], indirect: list[tuple[str, str]], application: str) -> Graph:
        """Read call graphs. `indirect` says where a call through a pointer goes: pairs of a pattern for the call's text
        and of a shell pattern `file.c:name` for functions, or `application` when it leaves the library.
        """
        graph = cls()
        pointers: list[tuple[str, str]] = []
        for file in files:
            text = file.read_text()
            for title, label in NODE.findall(text):
                frame = FRAME.search(label)
                if frame:
                    graph.frames[title] = int(frame.group(1))
                    if frame.group(2) not in ("static", "dynamic,bounded"):
                        graph.faults[title] = f"the frame of {title} is {frame.group(2)}"
            for source, target, path, line, column in EDGE.findall(text):
                if target != INDIRECT_CALL:
                    graph.calls[source].add(target)
                elif path:
                    pointers.append((source, called_text(path, int(line), int(column))))
                else:
                    graph.faults[source] = f"{source} makes a call that has no place"
        for source, called in pointers:
            graph.resolve(source, called, indirect, application)
        return graph

    def resolve(self, source: str, called: str, indirect: list[tuple[str, str]], application: str) -> None:
        """Add the edges of one call through a pointer."""
        for pattern, target in indirect:
            match = re.search(pattern, called)
            if match:
                if target != application:
                    wanted = match.expand(target).rstrip("?")
                    found = {f for f in self.frames if fnmatch(f.rsplit("/", 1)[-1], wanted)}
                    if not found and not target.endswith("?"):
                        self.faults[source] = f"there is no {wanted} for {source} to call through {called}"
                    self.calls[source] |= found
                return
        self.faults[source] = f"nothing says where {source} calls through {called}"

    def deepest(self, name: str, above: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        """Return the largest stack of a call of `name`, in bytes, and the path that needs it."""
        if name in above:
            raise Unbounded("recursion: " + " > ".join((*above[above.index(name) :], name)))
        if name in self.faults:
            raise Unbounded(self.faults[name])
        if name not in self.frames:
            return LIBRARY_FRAME, [name]
        below = [self.deepest(callee, (*above, name)) for callee in sorted(self.calls[name])]
        size, path = max(below, key=lambda d: d[0], default=(0, []))
        return self.frames[name] + size, [name.rsplit(":", 1)[-1], *path]
