# SPDX-License-Identifier: Apache-2.0
"""An update passes at most four files from the socket to the accumulator, and none of them knows both ends."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_broker import Broker, Devices, federation, serve

import fedmote
import fedmote_device
from fedmote.fleet.slots import Slot
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.update import Update
from fedmote.server.server import Server

PROJECT = [Path(package.__file__ or "").parent for package in (fedmote, fedmote_device)]


def way_here() -> list[Path]:
    """Return the project's files on the path from paho's socket read to the caller, in call order."""
    files: list[Path] = []
    frame = sys._getframe(2)
    while frame.f_code.co_name != "loop_read":
        file = Path(frame.f_code.co_filename)
        if file not in files and any(file.is_relative_to(folder) for folder in PROJECT):
            files.append(file)
        assert frame.f_back is not None, "it did not come from the socket"
        frame = frame.f_back
    return files[::-1]


def imports(file: Path) -> Iterator[str]:
    """Every module, and every name of a module, that the file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_at_most_four_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[str, set[tuple[Path, ...]]] = {"update": set(), "chunk": set()}
    add, place_chunk = Accumulator.add, Slot.place_chunk

    def seen_add(self: Accumulator, update: Update, weight: float) -> bool:
        ways["update"].add((*way_here(), Path(add.__code__.co_filename)))
        return add(self, update, weight)

    def seen_chunk(self: Slot, index: int, data: memoryview, scale: float, now: float) -> bool:
        ways["chunk"].add((*way_here(), Path(place_chunk.__code__.co_filename)))
        return place_chunk(self, index, data, scale, now)

    monkeypatch.setattr(Accumulator, "add", seen_add)
    monkeypatch.setattr(Slot, "place_chunk", seen_chunk)
    broker = Broker(tmp_path)
    broker.start()
    try:
        with Devices(broker.url, 1):
            asyncio.run(serve(Server(federation(broker.url, tmp_path, 1)), 1))
    finally:
        broker.stop()

    links = {f"fedmote.links.{file.stem}" for file in (PROJECT[0] / "links").glob("[a-z]*.py")} - {"fedmote.links.link"}
    for what, last in (("update", "accumulator.py"), ("chunk", "slots.py")):
        (way,) = ways[what]
        files = list(dict.fromkeys(way))
        assert files[0].name == "mqtt.py" and files[-1].name == last and len(files) <= 4, files
        for file in files:
            known = set(imports(file))
            assert not (known & links and any(name.startswith("fedmote.learning") for name in known)), file
