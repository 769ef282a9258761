# SPDX-License-Identifier: Apache-2.0
"""A board in QEMU whose storage survives power cuts."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmote.faults.cable import Cable
from fedmote.testing.log import WAIT_S, Log, follow

START_S = 60.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that QEMU emulates.

    program: QEMU's executable. options: in addition to the machine's name. own_bus: whether the CPU's memory is on a
    bus of its own, so that QEMU's memory commands must name the CPU.
    """

    program: str
    options: tuple[str, ...] = ()
    own_bus: bool = False


MACHINES = {
    "mps2-an385": Machine("qemu-system-arm"),
    "mps2-an386": Machine("qemu-system-arm"),
    "mps2-an500": Machine("qemu-system-arm"),
    "microbit": Machine("qemu-system-arm", own_bus=True),
    "virt": Machine("qemu-system-riscv32", ("-bios", "none")),
}


class EmulatedDevice:
    """A firmware image on an emulated machine, while the context lasts.

    image: an ELF; the memory between its symbols __storage_start and __storage_end survives power_cut(). machine: one
    of MACHINES. arguments: for QEMU, in addition.
    """

    def __init__(self, image: str | Path, machine: str = "mps2-an385", *, arguments: Sequence[str] = ()) -> None:
        if machine not in MACHINES:
            raise ValueError(f"machine {machine!r}: known are {', '.join(MACHINES)}")
        self.image, self.machine = Path(image), machine
        self.log = Log()
        self._arguments = list(arguments)
        self._machine = MACHINES[machine]
        self._storage, self._entry = storage_of(self.image)
        self._cable = Cable(loose=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._running = contextlib.ExitStack()  # open while the power is on
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> EmulatedDevice:
        """Switch the power on."""
        with contextlib.ExitStack() as stack:
            # pytest's own folder is too long: the path of a UNIX socket has at most 107 bytes.
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-")))
            stack.enter_context(self._cable)
            stack.callback(self._kill)
            self.power_on()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Switch the power off and remove the storage."""
        self._stack.close()

    @property
    def serial_path(self) -> str:
        """The path for the server's serial ports; it stays the same over power cuts."""
        return self._cable.ends[0]

    @property
    def lines(self) -> list[str]:
        """The lines that the firmware logged through semihosting, over all starts."""
        return self.log.lines

    @property
    def state(self) -> str:
        """The last state in the firmware's log; "" before the first."""
        return self.log.last(r"^state (\w+)")

    @property
    def power(self) -> str:
        """One of "on"; "off"; "halted": the firmware reset or stopped the board, and its memory is unchanged."""
        if self._process is None:
            return "off"
        return "on" if self._qmp.execute("query-status")["running"] else "halted"

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = WAIT_S) -> re.Match[str]:
        """Wait for a line; see Log.wait_for()."""
        return self.log.wait_for(pattern, after, timeout_s)

    def power_cut(self) -> None:
        """Cut the power at once."""
        if self._process is None:
            raise RuntimeError("the device has no power to cut; power_on() first")
        self._qmp.execute("stop")
        start, end = self._storage
        if end > start:
            save = "memsave" if self._machine.own_bus else "pmemsave"
            self._qmp.execute(save, val=start, size=end - start, filename=str(self._flash))
        self._kill()

    def power_on(self) -> None:
        """Start, with the storage as it was when the power was cut."""
        if self._process is not None:
            raise RuntimeError("the device has power already; power_cut() first")
        with contextlib.ExitStack() as stack:
            process = subprocess.Popen(self._command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            stack.enter_context(process)
            stack.callback(process.kill)
            try:
                log, uart, qmp = (stack.enter_context(self._connect(process, name)) for name in ("log", "uart0", "qmp"))
                self._qmp = stack.enter_context(Qmp(qmp))
            except ConnectionError as error:
                said = process.communicate(timeout=START_S)[0].decode()
                raise RuntimeError(f"QEMU ended: {said}\n{shlex.join(self._command())}") from error
            self.log.open()
            stack.callback(follow(self.log, lambda: log.recv(4096), lambda: "the device has no power").join)
            stack.callback(process.kill)
            self._cable.plug(uart.detach())
            self._qmp.execute("cont")
            self._running = stack.pop_all()
        self._process = process

    @property
    def _flash(self) -> Path:
        return self._folder / "storage"

    def _command(self) -> list[str]:
        program = shutil.which(self._machine.program)
        if program is None:
            problem = f"no {self._machine.program} found"
            raise FileNotFoundError(f"{problem}; Debian and Ubuntu have it in qemu-system-arm or qemu-system-misc")
        command = [program, "-M", self.machine, *self._machine.options, "-kernel", str(self.image), "-S"]
        command += ["-display", "none", "-monitor", "none", "-action", "reboot=shutdown,shutdown=pause"]
        for name in ("uart0", "log", "qmp"):
            (self._folder / name).unlink(missing_ok=True)
            command += ["-chardev", f"socket,id={name},path={self._folder / name},server=on,wait=off"]
        command += ["-serial", "chardev:uart0", "-mon", "chardev=qmp,mode=control"]
        command += ["-semihosting-config", "enable=on,target=native,chardev=log"]
        if self._flash.exists():
            loader = f"loader,file={self._flash},addr={self._storage[0]:#x},force-raw=on"
            command += ["-device", f"{loader},cpu-num=0" if self._machine.own_bus else loader]
            if self._machine.own_bus:  # loading through the CPU has set its program counter, too
                command += ["-device", f"loader,addr={self._entry:#x},cpu-num=0"]
        return command + self._arguments

    def _connect(self, process: subprocess.Popen[bytes], name: str) -> socket.socket:
        """Connect as soon as QEMU listens."""
        deadline = time.monotonic() + START_S
        tick = threading.Event()
        while True:
            end = socket.socket(socket.AF_UNIX)
            try:
                end.connect(str(self._folder / name))
                return end
            except OSError as error:
                end.close()
                if process.poll() is not None:
                    raise ConnectionError from error
                if time.monotonic() > deadline:
                    raise TimeoutError(f"QEMU does not listen on {name} after {START_S:g} s") from error
                tick.wait(0.005)

    def _kill(self) -> None:
        self._process = None
        self._running.close()


class Qmp:
    """QEMU's machine protocol, one command at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._file = end.makefile("rw", encoding="utf-8")
        self._file.readline()  # its greeting
        self._lock = threading.Lock()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Return what the command returns; RuntimeError with QEMU's reason when it refuses."""
        with self._lock:
            self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._file.flush()
            while line := self._file.readline():
                answer = json.loads(line)
                if "error" in answer:
                    raise RuntimeError(f"QEMU refuses {command}: {answer['error']['desc']}")
                if "return" in answer:  # anything else is an event
                    return answer["return"]
        raise ConnectionError(f"QEMU ended during {command}")

    def __enter__(self) -> Qmp:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._file.close()


def storage_of(image: Path) -> tuple[tuple[int, int], int]:
    """Return the addresses where the image's storage starts and ends, (0, 0): it has none, and the entry point."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with image.open("rb") as file:
        elf = ELFFile(file)
        table, entry = elf.get_section_by_name(".symtab"), int(elf["e_entry"])
        if not isinstance(table, SymbolTableSection):
            return (0, 0), entry
        start, end = (table.get_symbol_by_name(f"__storage_{which}") for which in ("start", "end"))
        return ((int(start[0]["st_value"]), int(end[0]["st_value"])) if start and end else (0, 0)), entry
