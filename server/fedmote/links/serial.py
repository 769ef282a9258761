# SPDX-License-Identifier: Apache-2.0
"""Serial lines, one device each, on the event loop's thread (docs/wire.md, "Serial")."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import serial

from fedmote.links.link import Lost, Receive
from fedmote.wire.codec import decode, text
from fedmote.wire.Hello import Hello
from fedmote_device.links import SerialLink

log = logging.getLogger(__name__)

REOPEN_S = 1.0
POLL_S = 0.005  # between polls of a port that has no descriptor to wait on (rfc2217://)
FLUSH_CHECKS = 200  # of 10 ms
READ_BYTES = 4096
MOST_UNSENT = 1024  # messages
MOST_UNWRITTEN = 65536  # bytes
FRAMES_BITS = 10 * 254 * 4  # of a full window on the line: the initial time to an acknowledgement


@dataclass(frozen=True, slots=True)
class Port:
    """One serial line.

    url: as pyserial takes it, /dev/ttyUSB0, socket://host:port, rfc2217://host:port. baud: bits per second.
    device: the only device id that is accepted; None: the one in the first Hello.
    """

    url: str
    baud: int = 115200
    device: str | None = None


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """The serial lines of a federation: no url twice."""

    ports: tuple[Port, ...]

    @property
    def addresses(self) -> list[str]:
        """The URL of each port."""
        return [port.url for port in self.ports]

    def make_link(self, federation: str, receive: Receive, lost: Lost) -> SerialPorts:
        """Make the link. A line belongs to one federation, so `federation` is not used."""
        return SerialPorts(self.ports, receive, lost)


class _Line:
    """A port, and the device library's serial link on it."""

    def __init__(self, port: Port, owner: SerialPorts, seed: int) -> None:
        self.port, self.owner = port, owner
        self.device: str | None = port.device
        self._link = SerialLink(seed=seed, retransmit_ms=min(8000, 50 + FRAMES_BITS * 1000 // port.baud))
        self._serial: serial.SerialBase | None = None
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten = b""
        self._connection = 0
        self._loop = asyncio.get_running_loop()
        self._told = ""
        self._broken = asyncio.Event()

    async def run(self) -> None:
        """Keep the port open. Opening a network port may take long, so that happens on another thread."""
        while True:
            try:
                opened = await asyncio.to_thread(self._open)
            except Exception as error:  # pyserial raises termios.error and others in addition to its own errors
                self.trouble(f"cannot be opened: {error}")
            else:
                self._use(opened)
                await self._broken.wait()
                self._broken.clear()
            await asyncio.sleep(REOPEN_S)

    def _open(self) -> serial.SerialBase:
        if self.port.url.startswith("rfc2217:"):
            return serial.serial_for_url(self.port.url, self.port.baud, timeout=0)  # this handler has no other options
        return serial.serial_for_url(self.port.url, self.port.baud, timeout=0, write_timeout=0, exclusive=True)

    def _use(self, opened: serial.SerialBase) -> None:
        self._serial = opened
        try:
            self._fd = opened.fileno()
        except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
            self._fd = -1
        self._told = ""
        self._link.open()
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self.move)
        self.move()

    def close(self) -> None:
        """Close the port."""
        if self._timer is not None:
            self._timer.cancel()
        if self._serial is not None:
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)
                self._loop.remove_writer(self._fd)
            self._serial.close()
            self._serial = None

    def stop(self) -> None:
        """Tell the peer, if the line accepts that at once, and close."""
        if self._serial is not None:
            self._link.close()
            try:
                if self._writable():
                    self._serial.write(self._unwritten + self._link.take())
            except (OSError, serial.SerialException):
                log.debug("%s: could not take leave", self.port.url)
        self.close()

    @property
    def unsent(self) -> int:
        """Messages that the device has not acknowledged; 0 while there is none."""
        return self._link.unsent if self._connection else 0

    def send(self, message: bytes) -> None:
        """Queue a message for the device."""
        if self._link.unsent > MOST_UNSENT:
            log.warning("serial port %s: its device asks for more than it takes; messages are dropped", self.port.url)
        elif self._connection:
            self._link.send(message, reliable=False)  # a later connection begins with a new Hello
            self._later(0.0, self.move)

    def move(self) -> None:
        """Read, write, and do what is due."""
        if self._serial is None:
            return
        try:
            data = self._serial.read(READ_BYTES)
            while messages := self._link.feed(data, time.monotonic_ns() // 1_000_000):
                data = b""  # poll once more, to send the answers
                self._follow()
                for message in messages:
                    self._take(message)
            self._follow()
            self._write()
        except (OSError, serial.SerialException) as error:
            self._break(error)
            return
        wait = self._link.wait_ms / 1000
        self._later(wait if self._fd >= 0 else min(wait, POLL_S), self.move)

    def _take(self, message: bytes) -> None:
        if self.port.device is None and isinstance(hello := decode(message), Hello):
            named = text(hello.DeviceId())
            if self.device not in (None, named):
                self.owner.left(self)  # another device was plugged in
            self.device = named
        if self.device is not None:
            self.owner.took(self.device, message, self)

    def _follow(self) -> None:
        """Follow the link's connection: when it ends or restarts, drop what was queued for the former one."""
        connection = self._link.connection
        if connection != self._connection:
            if self._connection:
                self.owner.left(self)
            self._link.forget()
            self._connection = connection

    def _write(self) -> None:
        if len(self._unwritten) < MOST_UNWRITTEN:  # the link's own buffer fills, and then it writes no more
            self._unwritten += self._link.take()
        if self._unwritten and self._serial is not None and self._writable():
            written = self._serial.write(self._unwritten) or 0
            self._unwritten = self._unwritten[written:]
        if self._fd >= 0:
            if self._unwritten:
                self._loop.add_writer(self._fd, self.move)
            else:
                self._loop.remove_writer(self._fd)

    def _writable(self) -> bool:
        """Tell whether the port accepts bytes; without asking, pyserial would spin."""
        return self._fd < 0 or bool(select.select([], [self._fd], [], 0)[1])

    def _break(self, error: Exception) -> None:
        self.trouble(f"broke: {error}")
        self.close()
        self._unwritten = b""
        self._link.break_stream()
        self._link.poll(time.monotonic_ns() // 1_000_000)
        self._follow()
        self._broken.set()

    def trouble(self, what: str) -> None:
        """Log a warning, once for each kind of trouble."""
        if what != self._told:
            log.warning("serial port %s %s", self.port.url, what)
            self._told = what

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, what)


class SerialPorts:
    """All serial lines of a federation. lost: called with (device, send) when a device's line broke."""

    def __init__(self, ports: Sequence[Port], receive: Receive, lost: Lost) -> None:
        self.ports, self.receive, self.lost = ports, receive, lost
        self.lines: list[_Line] = []
        self.bytes_in = self.bytes_out = 0
        self._by_device: dict[str, _Line] = {}
        self._pinned = {port.device: port.url for port in ports if port.device is not None}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the ports. A port that does not exist yet is retried until it does."""
        self.lines = [_Line(port, self, seed) for seed, port in enumerate(self.ports, start=2)]
        self._tasks = [asyncio.create_task(line.run()) for line in self.lines]

    async def stop(self) -> None:
        """Close the ports after the devices have received what was sent to them: a receipt, a commit."""
        try:
            for _ in range(FLUSH_CHECKS):
                if not any(line.unsent for line in self.lines):
                    break
                await asyncio.sleep(0.01)
        finally:
            for task in self._tasks:
                task.cancel()
            for line in self.lines:
                line.stop()

    def left(self, line: _Line) -> None:
        """Report that the line's device, if it was accepted, is gone, and free its id."""
        if line.device is not None and self._by_device.get(line.device) is line:
            del self._by_device[line.device]
            self.lost(line.device, self.send)

    def took(self, device: str, message: bytes, line: _Line) -> None:
        """Deliver a device's message. A device id belongs to one line while the connection lasts."""
        pinned = self._pinned.get(device, line.port.url)
        if pinned == line.port.url and self._by_device.setdefault(device, line) is line:
            self.bytes_in += len(message)
            self.receive(device, message, time.monotonic(), self.send)
        else:
            line.trouble(f"is used by {device!r}, which belongs to another port")

    def send(self, device: str, message: bytes) -> None:
        """Send to one device."""
        if (line := self._by_device.get(device)) is not None:
            self.bytes_out += len(message)
            line.send(message)

    def broadcast(self, message: bytes) -> None:
        """Send to all devices."""
        for device in self._by_device:
            self.send(device, message)

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Do nothing: devices on serial lines ask for each chunk, and their session answers."""
