# SPDX-License-Identifier: Apache-2.0
"""Bare-metal firmware: each image builds without a warning, and one takes part in rounds under QEMU.

The image runs the same C as a desktop device, on software floating point: given the same examples, both must bring the
server to the same model, to the bit.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmote.demo.data import partition, split
from fedmote.layout import dense
from fedmote.links.serial import Port
from fedmote.round import Policy, Record, Training
from fedmote.server import Federation, Server
from fedmote.testing.cable import Cable
from fedmote_device import CTrainer, Device

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("cortex_m3_serial",)
DEVICE = "cortex_m3_serial"
WIDTHS = (64, 32, 10)
ROUNDS = 2


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Each image and what its build said, built anew with warnings as errors."""
    out: dict[str, tuple[Path, str]] = {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in IMAGES:
        folder = tmp_path_factory.mktemp(name)
        source = ROOT / "firmware_examples" / name
        said = ""
        for command in (
            ["cmake", "-S", str(source), "-B", str(folder), "-G", "Ninja", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"],
            ["cmake", "--build", str(folder)],
        ):
            done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
            said += done.stdout + done.stderr
            assert done.returncode == 0, said
        out[name] = (folder / f"{name}.elf", said)
    return out


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_builds_without_warnings(name: str, built: dict[str, tuple[Path, str]]) -> None:
    """Compiler and linker have nothing to say, and the size is told."""
    elf, said = built[name]
    assert elf.read_bytes()[:4] == b"\x7fELF"
    assert "warning" not in said.lower()
    assert "text" in said and elf.name in said.splitlines()[-1]


@contextmanager
def emulated(elf: Path, line: str, log: Path) -> Iterator[None]:
    """The image under QEMU, UART0 on a terminal."""
    command = ["qemu-system-arm", "-M", "mps2-an385", "-kernel", str(elf), "-display", "none", "-monitor", "none",
               "-chardev", f"serial,id=uart0,path={line}", "-serial", "chardev:uart0",
               "-chardev", f"file,id=log,path={log}",
               "-semihosting-config", "enable=on,target=native,chardev=log"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as qemu:
        try:
            yield
        finally:
            qemu.terminate()


@contextmanager
def desktop(line: str) -> Iterator[None]:
    """The same device on this machine: what the image's build got of the digits, and its seed."""
    rng = np.random.default_rng(1)
    x, y, _, _ = split(rng)
    mine = partition(y, 10, 1.0, rng)[0]
    device = Device(
        DEVICE,
        f"serial://{line}",
        federation="digits",
        trainer=CTrainer(WIDTHS, x[mine], y[mine]),
        seed=zlib.crc32(DEVICE.encode()),
        encoding="int8",
        delta=True,
    )
    done = threading.Event()
    thread = threading.Thread(target=device.run, kwargs={"until": lambda _: done.is_set(), "timeout_s": 300})
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def serve(port: str) -> tuple[NDArray[np.float32], list[Record]]:
    """Two rounds with the real server on this end of the cable."""
    records: list[Record] = []
    layout = dense(WIDTHS)
    server = Server(
        Federation(
            "digits",
            layout,
            None,
            Training(epochs=2, batch_size=16),
            Policy(chunk_elements=128, soft_deadline_s=240, hard_deadline_s=280),
            initial=layout.glorot(1),
            ports=(Port(port),),
        ),
        on_round=records.append,
    )
    asyncio.run(asyncio.wait_for(server.run(ROUNDS), 300))
    return server.model, records


def test_rounds_under_emulation_give_the_desktop_devices_model(
    built: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """Boot, download, train, upload, twice; the log tells it, and the model is the same as without emulation."""
    log = tmp_path / "log"
    with Cable() as cable, emulated(built[DEVICE][0], cable.ends[1], log):
        model, records = serve(cable.ends[0])
    assert [(r.round, r.reported, r.partial) for r in records] == [(1, 1, 0), (2, 1, 0)]
    lines = log.read_text().splitlines()
    assert lines[0] == "boot restored=0 round=0"
    states = [line for line in lines if line.startswith("state ")]
    way = ("downloading", "checking", "working", "sealing", "offering", "uploading", "confirming")
    for number in (1, 2):
        first = states.index(f"state downloading round={number}")
        assert states[first : first + len(way)] == [f"state {name} round={number}" for name in way]
    assert [line for line in lines if line.startswith("chunk ")][:18] == [f"chunk {n}" for n in range(1, 19)]
    assert not [line for line in lines if line.startswith("fault")]

    with Cable() as cable, desktop(cable.ends[1]):
        expected, _ = serve(cable.ends[0])
    assert model.tobytes() == expected.tobytes()
    assert model.tobytes() != dense(WIDTHS).glorot(1).tobytes()
