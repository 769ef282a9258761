# SPDX-License-Identifier: Apache-2.0
"""Bare-metal firmware: each image builds without a warning, and takes part in rounds under QEMU.

An image runs the same C as a desktop device, on software floating point: given the same examples, both must bring the
server to the same model, to the bit.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import size
import stack
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from fedmote.datasets.digits import partition, split
from fedmote.faults.cable import Cable
from fedmote.links.serial import Port
from fedmote.model.initial import glorot
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote.testing.qemu import EmulatedDevice
from fedmote_device import CTrainer, Device

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "firmware_examples"
ROUNDS = 2
CHUNK_ELEMENTS = 128
GIVE_UP_S = 600  # on a machine that is far too busy; nothing waits for it otherwise
WAY = ("downloading", "checking", "working", "sealing", "offering", "uploading", "confirming")


@dataclass(frozen=True)
class Image:
    """One firmware.

    machine: QEMU's. widths: of its network. poison: an instruction that it must not survive. flash: what its storage's
    functions begin with. interrupts: its handlers. report: tells a fault. interrupted: bytes that the core itself
    stacks for an interrupt or a fault.
    """

    name: str
    machine: str
    widths: tuple[int, ...]
    poison: bytes
    fault: str
    flash: str
    interrupts: tuple[str, ...]
    report: str
    interrupted: int

    @property
    def chunks(self) -> int:
        return -(-dense(self.widths).elements // CHUNK_ELEMENTS)


UNDEFINED_THUMB = bytes.fromhex("00de")  # udf #0
ILLEGAL = bytes(4)
UNALIGNED_LOAD = bytes.fromhex("01200068")  # movs r0, #1; ldr r0, [r0]
PUSH_FOR_EVER = bytes.fromhex("01b4fde7")  # push {r0}; b back to it
IMAGES = (
    Image("cortex_m3_serial", "mps2-an385", (64, 32, 10), UNDEFINED_THUMB, "fault hard pc={0:08x}",
          "nor", ("uart0_rx_handler", "uart0_tx_handler", "systick_handler"), "fault_report", 36),
    Image("riscv32_serial", "virt", (64, 32, 10), ILLEGAL, "fault trap cause=2 pc={0:08x}",
          "nor", ("trap_handler",), "trap_handler", 0),
    Image("cortex_m0_sensor", "microbit", (16, 12, 10), UNALIGNED_LOAD, "fault hard pc={1:08x}",
          "flash", ("uart0_handler", "timer0_handler"), "fault_report", 36),
)  # fmt: skip
CALLS = (  # where the application's calls through pointers go, and those of the boards; the library's are in size.py
    (r"stream(\.|->)api->(\w+)$", r"uart.c:uart_\2"),
    (r"\bapp->may_work$", size.APPLICATION),  # there is none
    (r"\bapp->state_changed$", "app.c:state_changed"),
    (r"\bapp->work_begin$", "fm_trainer_begin"),
    (r"\bapp->train_step$", "fm_trainer_step"),
    (r"\bapp->evaluate_step$", "fm_trainer_evaluate"),
    (r"\bstep$", "fm_trainer_[es]*"),
    (r"\bdata->read$", "digits_read"),
    (r"platform->log$", "*_log"),
    (r"uart->start$", "board.c:uart0_start"),
)
Built = dict[str, tuple[Path, str]]
each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def build(source: Path, folder: Path, *settings: str) -> str:
    """Build a firmware from scratch, with warnings as errors and call graphs. Return the build's output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CFLAGS": "-fcallgraph-info=su"}
    said = ""
    commands: tuple[list[str | Path], ...] = (
        ["cmake", "-S", source, "-B", folder, "-G", "Ninja", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *settings],
        ["cmake", "--build", folder],
    )
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    return said


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Each image, with its build's output."""
    out: Built = {}
    for image in IMAGES:
        folder = tmp_path_factory.mktemp(image.name)
        said = build(EXAMPLES / image.name, folder)
        out[image.name] = (folder / f"{image.name}.elf", said)
    return out


def serve(image: Image, port: str) -> tuple[NDArray[np.float32], list[Record]]:
    """Run two rounds with the real server at this port."""
    records: list[Record] = []
    layout = dense(image.widths)
    server = Server(
        Federation(
            "digits",
            layout,
            None,
            Training(epochs=2, batch_size=16),
            Policy(chunk_elements=CHUNK_ELEMENTS, soft_deadline_s=GIVE_UP_S, hard_deadline_s=GIVE_UP_S),
            initial=glorot(layout, 1),
            ports=(Port(port),),
        ),
        on_round=records.append,
    )
    asyncio.run(asyncio.wait_for(server.run(ROUNDS), GIVE_UP_S))
    return server.model, records


@contextmanager
def desktop(image: Image, line: str, name: str, share: int) -> Iterator[None]:
    """Return the same device on this machine, with the image's share of the digits, name and seed."""
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


def desktop_model(image: Image, name: str = "", share: int = 0) -> NDArray[np.float32]:
    """Return the model that the server gets without emulation."""
    with Cable() as cable, desktop(image, cable.ends[1], name or image.name, share):
        model, _ = serve(image, cable.ends[0])
    return model


@each_image
def test_an_image_builds_without_warnings(image: Image, built: Built) -> None:
    """Compiler and linker print no warning, and the build prints the size."""
    elf, said = built[image.name]
    assert elf.read_bytes()[:4] == b"\x7fELF"
    assert "warning" not in said.lower()
    assert "text" in said and elf.name in said.splitlines()[-1]


@each_image
def test_the_stack_suffices(image: Image, built: Built) -> None:
    """The stack holds the deepest path of the call graph, the deepest interrupt and the report of a fault together."""
    elf, _ = built[image.name]
    indirect = [*CALLS, (r"storage(\.|->)(read|program|erase)$", rf"*.c:{image.flash}_\2")]
    indirect += [
        (pattern, target.format(link="serial") if "{" in target else target) for pattern, target in size.INDIRECT
    ]
    graph = stack.Graph.read(sorted(elf.parent.rglob("*.ci")), indirect, size.APPLICATION)
    main, path = graph.deepest("main")
    assert "fm_client_poll" in graph.calls["app_poll"] and len(path) > 5
    above = max(graph.deepest(name)[0] for name in image.interrupts) + graph.deepest(image.report)[0]
    with elf.open("rb") as file:
        reserved = section(ELFFile(file), ".stack")["sh_size"]
    print(f"{image.name}: {main} + {above + 2 * image.interrupted} of {reserved}: {' > '.join(path)}")
    assert main + above + 2 * image.interrupted <= reserved


@each_image
def test_rounds_give_the_desktop_devices_model(image: Image, built: Built) -> None:
    """The log shows boot, download, training and upload, twice. The model equals the one without emulation."""
    with EmulatedDevice(built[image.name][0], image.machine) as device:
        model, records = serve(image, device.serial_path)
        device.wait_for(f"state confirming round={ROUNDS}")
        lines = list(device.lines)
    assert [(r.round, r.reported, r.partial) for r in records] == [(1, 1, 0), (2, 1, 0)]
    assert lines[0] == "boot restored=0 round=0"
    states = [line for line in lines if line.startswith("state ")]
    for number in (1, 2):
        first = states.index(f"state downloading round={number}")
        assert states[first : first + len(WAY)] == [f"state {name} round={number}" for name in WAY]
    chunks = [line for line in lines if line.startswith("chunk ")]
    assert chunks == ROUNDS * [f"chunk {n}" for n in range(1, image.chunks)]
    assert not [line for line in lines if line.startswith("fault")]
    assert model.tobytes() == desktop_model(image).tobytes()
    assert model.tobytes() != glorot(dense(image.widths), 1).tobytes()


@each_image
def test_power_cuts_change_nothing(image: Image, built: Built) -> None:
    """The power goes while it downloads, trains and uploads, in each round: the model is the same, to the bit.

    On a busy machine it may go much later than the line that tells of the moment, even than that of the next one.
    """
    moments = [
        (n, f"^{what}$") for n in (1, 2)
        for what in (f"chunk {image.chunks // 2}", f"state sealing round={n}", f"state uploading round={n}")
    ]  # fmt: skip
    with EmulatedDevice(built[image.name][0], image.machine) as device, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, image, device.serial_path)
        seen = 0
        for number, moment in moments:
            seen = device.log.wait_line(moment, seen) + 1
            device.power_cut()
            cut = len(device.lines)
            device.power_on()
            restored, round = map(int, device.wait_for(r"^boot restored=(\d+) round=(\d+)", cut).groups())
            assert "chunk" in moment or round > number or restored >= image.chunks
        model, records = served.result()
        assert not [line for line in device.lines if line.startswith("fault")]
    assert [(r.reported, r.partial) for r in records] == ROUNDS * [(1, 0)]
    assert model.tobytes() == desktop_model(image).tobytes()


def test_a_copied_folder_builds_as_another_device_and_silent(tmp_path: Path) -> None:
    """Built outside the repository, it learns from its own share under its own name, and logs nothing."""
    image = IMAGES[-1]
    copy, folder = tmp_path / "mine", tmp_path / "build"
    shutil.copytree(EXAMPLES / image.name, copy)
    settings = ("DEVICE_ID=press-7", "PARTITION=3", "SEMIHOSTING=OFF", f"DIR={ROOT}")
    build(copy, folder, *(f"-DFEDMOTE_{setting}" for setting in settings))
    with EmulatedDevice(folder / "mine.elf", image.machine) as device:
        model, records = serve(image, device.serial_path)
        device.power_cut()  # all that it said is there then
        assert device.lines == []
    assert [r.reported for r in records] == [1, 1]
    assert model.tobytes() == desktop_model(image, "press-7", 3).tobytes()
    assert model.tobytes() != desktop_model(image).tobytes()


def section(elf: ELFFile, name: str) -> Any:
    """Return a section of an image, which must have it."""
    found = elf.get_section_by_name(name)
    assert found is not None, name
    return found


def fault_of(image: Image, built: Built, instructions: bytes, folder: Path) -> tuple[str, int]:
    """What the image logs when its app_poll() is these instructions; and where that lies."""
    poisoned = folder / "poisoned.elf"
    shutil.copy(built[image.name][0], poisoned)
    with poisoned.open("r+b") as file:
        elf = ELFFile(file)
        address = section(elf, ".symtab").get_symbol_by_name("app_poll")[0]["st_value"] & ~1  # Thumb's bit
        text = section(elf, ".text")
        file.seek(text["sh_offset"] + address - text["sh_addr"])
        file.write(instructions)
    with EmulatedDevice(poisoned, image.machine) as device:
        fault = device.wait_for("^fault .*")
        assert device.lines[0] == "boot restored=0 round=0"
    return fault[0], address


@each_image
def test_a_fault_is_told(image: Image, built: Built, tmp_path: Path) -> None:
    """A wrong instruction ends in one line of the log that names it. On a Cortex-M0 an unaligned access is one."""
    fault, address = fault_of(image, built, image.poison, tmp_path)
    assert fault == image.fault.format(address, address + 2)


@pytest.mark.parametrize("image", [i for i in IMAGES if i.name.startswith("cortex")], ids=lambda image: image.name)
def test_a_stack_that_ran_out_is_told(image: Image, built: Built, tmp_path: Path) -> None:
    """A stack overflow is reported, although no stack is left for the report."""
    assert fault_of(image, built, PUSH_FOR_EVER, tmp_path)[0] == "fault stack"
