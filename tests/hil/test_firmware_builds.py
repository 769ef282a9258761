# SPDX-License-Identifier: Apache-2.0
"""Bare-metal firmware: each image builds without a warning, and takes part in rounds under QEMU.

An image runs the same C as a desktop device, on software floating point: given the same examples, both must bring the
server to the same model, to the bit.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
EXAMPLES = ROOT / "firmware_examples"
ROUNDS = 2
CHUNK_ELEMENTS = 128
GIVE_UP_S = 240  # on a machine that is far too busy; nothing waits for it otherwise


@dataclass(frozen=True)
class Image:
    """One firmware: how QEMU runs it, its network, and an instruction that it must not survive."""

    name: str
    machine: tuple[str, ...]
    tools: str
    widths: tuple[int, ...]
    poison: bytes
    fault: str

    @property
    def chunks(self) -> int:
        return -(-sum(a * b + b for a, b in zip(self.widths, self.widths[1:], strict=False)) // CHUNK_ELEMENTS)


UNALIGNED_LOAD = bytes.fromhex("01200068")  # movs r0, #1; ldr r0, [r0]
UNDEFINED_THUMB = bytes.fromhex("00de")  # udf #0
ILLEGAL = bytes(4)
IMAGES = (
    Image("cortex_m3_serial", ("qemu-system-arm", "-M", "mps2-an385"), "arm-none-eabi-", (64, 32, 10),
          UNDEFINED_THUMB, "fault hard pc={0:08x}"),
    Image("riscv32_serial", ("qemu-system-riscv32", "-M", "virt", "-bios", "none"), "riscv64-unknown-elf-",
          (64, 32, 10), ILLEGAL, "fault trap cause=2 pc={0:08x}"),
    Image("cortex_m0_sensor", ("qemu-system-arm", "-M", "microbit"), "arm-none-eabi-", (16, 12, 10),
          UNALIGNED_LOAD, "fault hard pc={1:08x}"),
)  # fmt: skip
each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def build(source: Path, folder: Path, *settings: str) -> str:
    """Build a firmware anew, with warnings as errors; return what the build said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = ""
    for command in (
        ["cmake", "-S", source, "-B", folder, "-G", "Ninja", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *settings],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    return said


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Each image and what its build said."""
    out: dict[str, tuple[Path, str]] = {}
    for image in IMAGES:
        folder = tmp_path_factory.mktemp(image.name)
        said = build(EXAMPLES / image.name, folder)
        out[image.name] = (folder / f"{image.name}.elf", said)
    return out


class Emulated:
    """An image under QEMU: UART0 on a terminal, its log read line by line."""

    def __init__(self, image: Image, kernel: Path, line: str | None, monitor: Path) -> None:
        uart = ["-chardev", f"serial,id=uart0,path={line}" if line else "null,id=uart0", "-serial", "chardev:uart0"]
        log = ["-chardev", "stdio,id=log,signal=off", "-semihosting-config", "enable=on,target=native,chardev=log"]
        watch = ["-display", "none", "-monitor", f"unix:{monitor},server=on,wait=off"]
        self._monitor = str(monitor)
        self._qemu = subprocess.Popen(
            [*image.machine, "-kernel", str(kernel), *watch, *uart, *log],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._watchdog = threading.Timer(GIVE_UP_S, self._qemu.kill)
        self.lines: list[str] = []
        self._rest = ""

    def __enter__(self) -> Emulated:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._qemu.kill()
        self._rest, _ = self._qemu.communicate()

    def until(self, start: str) -> str:
        """Read the log up to a line that starts like this."""
        assert self._qemu.stdout is not None
        for text in self._qemu.stdout:
            self.lines.append(text.rstrip("\n"))
            if text.startswith(start):
                return self.lines[-1]
        raise AssertionError(f"no line {start!r}, but {self.lines}")

    def rest(self) -> str:
        """What was logged and not read before it was switched off."""
        return self._rest

    def reset(self) -> None:
        """As the reset button: the memory stays as it is."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(self._monitor)
            monitor.sendall(b"system_reset\n")
            answer = b""
            while answer.count(b"(qemu)") < 2:  # before the command, and when it is done
                answer += monitor.recv(4096)


@contextmanager
def desktop(image: Image, line: str, name: str, share: int) -> Iterator[None]:
    """The same device on this machine: what the image's build got of the digits, its name and its seed."""
    rng = np.random.default_rng(1)
    x, y, _, _ = split(rng)
    mine = partition(y, 10, 1.0, rng)[share]
    features = x[mine] if image.widths[0] == 64 else x[mine].reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    device = Device(
        name,
        f"serial://{line}",
        federation="digits",
        trainer=CTrainer(image.widths, features, y[mine]),
        seed=zlib.crc32(name.encode()),
        encoding="int8",
        delta=True,
    )
    done = threading.Event()
    thread = threading.Thread(target=device.run, kwargs={"until": lambda _: done.is_set(), "timeout_s": GIVE_UP_S})
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def serve(image: Image, port: str) -> tuple[NDArray[np.float32], list[Record]]:
    """Two rounds with the real server at this end of the cable."""
    records: list[Record] = []
    layout = dense(image.widths)
    server = Server(
        Federation(
            "digits",
            layout,
            None,
            Training(epochs=2, batch_size=16),
            Policy(chunk_elements=CHUNK_ELEMENTS, soft_deadline_s=GIVE_UP_S, hard_deadline_s=GIVE_UP_S),
            initial=layout.glorot(1),
            ports=(Port(port),),
        ),
        on_round=records.append,
    )
    asyncio.run(asyncio.wait_for(server.run(ROUNDS), GIVE_UP_S))
    return server.model, records


def desktop_model(image: Image, name: str = "", share: int = 0) -> NDArray[np.float32]:
    """The model that the server comes to without emulation."""
    with Cable() as cable, desktop(image, cable.ends[1], name or image.name, share):
        model, _ = serve(image, cable.ends[0])
    return model


@each_image
def test_an_image_builds_without_warnings(image: Image, built: dict[str, tuple[Path, str]]) -> None:
    """Compiler and linker have nothing to say, and the size is told."""
    elf, said = built[image.name]
    assert elf.read_bytes()[:4] == b"\x7fELF"
    assert "warning" not in said.lower()
    assert "text" in said and elf.name in said.splitlines()[-1]


@each_image
def test_rounds_give_the_desktop_devices_model(
    image: Image, built: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """Boot, download, train, upload, twice; the model is the same as without emulation, and a reset keeps it."""
    with Cable() as cable, Emulated(image, built[image.name][0], cable.ends[1], tmp_path / "monitor") as device:
        model, records = serve(image, cable.ends[0])
        device.reset()
        device.until("boot")
        boot = device.until("boot")
    assert [(r.round, r.reported, r.partial) for r in records] == [(1, 1, 0), (2, 1, 0)]
    assert device.lines[0] == "boot restored=0 round=0"
    states = [line for line in device.lines if line.startswith("state ")]
    way = ("downloading", "checking", "working", "sealing", "offering", "uploading", "confirming")
    for number in (1, 2):
        first = states.index(f"state downloading round={number}")
        assert states[first : first + len(way)] == [f"state {name} round={number}" for name in way]
    chunks = [line for line in device.lines if line.startswith("chunk ")]
    assert chunks == 2 * [f"chunk {n}" for n in range(1, image.chunks)]
    assert not [line for line in device.lines if line.startswith("fault")]
    # the model; the update, too, unless the server's word that it is done with arrived before the server left
    assert boot in [f"boot restored={image.chunks + more} round=2" for more in (0, 1)]

    assert model.tobytes() == desktop_model(image).tobytes()
    assert model.tobytes() != dense(image.widths).glorot(1).tobytes()


def test_a_copied_folder_builds_as_another_device_and_silent(tmp_path: Path) -> None:
    """Elsewhere, told where fedmote is: it learns from its own share under its own name, and logs nothing."""
    image = IMAGES[-1]
    copy, folder = tmp_path / "mine", tmp_path / "build"
    shutil.copytree(EXAMPLES / image.name, copy)
    settings = ("DEVICE_ID=press-7", "PARTITION=3", "SEMIHOSTING=OFF", f"DIR={ROOT}")
    build(copy, folder, *(f"-DFEDMOTE_{setting}" for setting in settings))
    with Cable() as cable, Emulated(image, folder / "mine.elf", cable.ends[1], tmp_path / "monitor") as device:
        model, records = serve(image, cable.ends[0])
    assert device.rest() == ""
    assert [r.reported for r in records] == [1, 1]
    assert model.tobytes() == desktop_model(image, "press-7", 3).tobytes()
    assert model.tobytes() != desktop_model(image).tobytes()


@each_image
def test_a_fault_is_told(image: Image, built: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    """A wrong instruction ends in one line that names it; on a Cortex-M0 an unaligned access is one."""
    elf, kernel = built[image.name][0], tmp_path / "kernel.bin"
    subprocess.run([f"{image.tools}objcopy", "-O", "binary", elf, kernel], check=True)
    symbols = subprocess.run([f"{image.tools}nm", elf], capture_output=True, text=True, check=True).stdout
    address = {name: int(value, 16) for value, name in re.findall(r"^(\w+) \w (\w+)$", symbols, re.MULTILINE)}
    base = min(value for name, value in address.items() if name in ("vectors", "_start"))
    code = bytearray(kernel.read_bytes())
    place = address["app_poll"] - base
    code[place : place + len(image.poison)] = image.poison
    kernel.write_bytes(code)
    with Emulated(image, kernel, None, tmp_path / "monitor") as device:
        assert device.until("boot") == "boot restored=0 round=0"
        fault = device.until("fault")
    assert fault == image.fault.format(address["app_poll"], address["app_poll"] + 2)
