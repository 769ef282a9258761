# SPDX-License-Identifier: Apache-2.0
"""An IP network that loses, delays and reorders packets: two network namespaces, and this process between them.

Needs root. Both sides use the kernel's TCP, so a link reacts to a lost packet exactly as on a real network.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import math
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Side = Literal["server", "device"]

SIDES: tuple[Side, Side] = ("server", "device")
ADDRESS: dict[Side, str] = {"server": "10.77.0.1", "device": "10.77.0.2"}

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000

_NAMESPACES = Path("/run/netns")
_PACKET = 65536
_IP_HEADER = 20
_MOST_HELD = 4096  # packets; a full queue drops more, as a router does
_counter = itertools.count()


class PacketPath:
    """Faults of packets in one direction, drawn from a seed. Does no I/O; the caller passes the time.

    loss, corrupt, reorder: shares of the packets. delay, jitter: seconds, evenly from delay - jitter to delay + jitter.
    A reordered packet skips the delay and so overtakes others. bandwidth: bytes per second.
    """

    def __init__(
        self, loss: float = 0.0, corrupt: float = 0.0, delay: float = 0.0, jitter: float = 0.0, reorder: float = 0.0,
        bandwidth: float = math.inf, seed: str = "1",
    ) -> None:  # fmt: skip
        if not (0 <= loss <= 1 and 0 <= corrupt <= 1 and 0 <= reorder <= 1):
            raise ValueError(f"loss {loss}, corrupt {corrupt}, reorder {reorder}: expected shares of 1")
        if not (0 <= jitter <= delay and bandwidth > 0) or (reorder and not delay):
            raise ValueError(f"delay {delay}: expected at least jitter, {jitter}, and more than 0 to reorder anything")
        self.loss, self.corrupt, self.delay, self.jitter, self.reorder = loss, corrupt, delay, jitter, reorder
        self.bandwidth = bandwidth
        self.passed = self.lost = self.corrupted = self.overtook = 0  # packets
        self.cut = False
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, bytes]] = []
        self._free = 0.0

    def push(self, packet: bytes, now: float) -> None:
        """Take a packet that arrived at `now`, in seconds. The same seed treats the n-th one the same."""
        lost, corrupt, spread, reorder = (self._random.random() for _ in range(4))
        if self.cut or lost < self.loss or len(self._heap) >= _MOST_HELD:
            self.lost += 1
            return
        if corrupt < self.corrupt and len(packet) > _IP_HEADER:
            at = _IP_HEADER + int(spread * (len(packet) - _IP_HEADER))
            packet = packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]
            self.corrupted += 1
        self._free = max(now, self._free) + len(packet) / self.bandwidth
        wait = self.delay + self.jitter * (2 * spread - 1)
        if reorder < self.reorder:
            self.overtook += bool(self._heap)
            wait = 0.0
        self.passed += 1
        heapq.heappush(self._heap, (self._free + wait, self.passed, packet))

    def pop(self, now: float) -> list[bytes]:
        """Return the packets that are due, in order."""
        out = []
        while self._heap and self._heap[0][0] <= now:
            out.append(heapq.heappop(self._heap)[2])
        return out

    @property
    def due(self) -> float:
        """Return the time of the next packet, in seconds; infinity: none is held."""
        return self._heap[0][0] if self._heap else math.inf


class Network:
    """Two hosts, ADDRESS["server"] and ADDRESS["device"], with a faulty network between them, while the context lasts.

    Options: those of PacketPath. Both directions have the same faults, each drawn independently from the seed.
    """

    def __init__(self, *, seed: int = 1, **options: float) -> None:
        self.ways = {side: PacketPath(**options, seed=f"{seed}/{side}") for side in SIDES}  # by sender
        prefix = f"fm{os.getpid()}x{next(_counter)}"
        self.names = {side: f"{prefix}{side[0]}" for side in SIDES}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Network:
        """Make the hosts and start to carry packets."""
        if os.geteuid() != 0:
            raise PermissionError("a network of namespaces needs root; run the tests that use it as root")
        with contextlib.ExitStack() as stack:
            for side in SIDES:
                _ip("netns", "add", self.names[side])
                stack.callback(_ip, "netns", "delete", self.names[side])
            self._fds = {side: self._tun(side) for side in SIDES}
            for fd in self._fds.values():
                stack.callback(os.close, fd)
            self._wake_read, self._wake_write = os.pipe()
            stack.callback(os.close, self._wake_read)
            stack.callback(os.close, self._wake_write)
            thread = threading.Thread(target=self._carry, daemon=True, name="network")
            thread.start()
            stack.callback(thread.join)
            stack.callback(os.write, self._wake_write, b"x")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hosts."""
        self._stack.close()

    @contextlib.contextmanager
    def inside(self, side: Side) -> Iterator[None]:
        """Move the calling thread, its new sockets and processes to that host while the context lasts."""
        with open("/proc/thread-self/ns/net") as before, open(_NAMESPACES / self.names[side]) as namespace:
            _enter(namespace.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def command(self, side: Side) -> list[str]:
        """Return the words to put in front of a command so that it runs on that host."""
        return ["ip", "netns", "exec", self.names[side]]

    def cut(self) -> None:
        """Lose every packet from now on, until restore()."""
        self._set_cut(True)

    def restore(self) -> None:
        """Let packets pass again."""
        self._set_cut(False)

    def _set_cut(self, cut: bool) -> None:
        for way in self.ways.values():
            way.cut = cut

    def _tun(self, side: Side) -> int:
        with self.inside(side):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"fm0", _IFF_TUN | _IFF_NO_PI))
            _ip("link", "set", "lo", "up")
            _ip("addr", "add", f"{ADDRESS[side]}/24", "dev", "fm0")
            _ip("link", "set", "fm0", "up")
        return fd

    def _carry(self) -> None:
        ends = [(self._fds["server"], self._fds["device"], self.ways["server"]),
                (self._fds["device"], self._fds["server"], self.ways["device"])]  # fmt: skip
        while True:
            due = min(way.due for _, _, way in ends)
            timeout = None if math.isinf(due) else max(0.0, due - time.monotonic())
            readable, _, _ = select.select([*self._fds.values(), self._wake_read], [], [], timeout)
            if self._wake_read in readable:
                return
            for source, target, way in ends:
                if source in readable:
                    packet = os.read(source, _PACKET)
                    if (
                        packet[0] >> 4 == 4
                    ):  # not IPv6: the kernel itself searches for routers with it, at no fixed time
                        way.push(packet, time.monotonic())
                for packet in way.pop(time.monotonic()):
                    with contextlib.suppress(BlockingIOError):
                        os.write(target, packet)


def _ip(*arguments: str) -> None:
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")
