# SPDX-License-Identifier: Apache-2.0
"""One description of a faulty link, for use on a serial line, on TCP, or on an IP network."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import stat
from dataclasses import KW_ONLY, dataclass
from urllib.parse import urlsplit

import serial

from fedmote.faults.cable import Cable
from fedmote.faults.fault import Noise
from fedmote.faults.tcp_proxy import TcpProxy
from fedmote.faults.tun import Network
from fedmote.links.url import BrokerUrl


@dataclass
class LinkFaults:
    """Makes links with these faults between device and server. The end of the context closes them.

    loss, corrupt: shares of the bytes on a serial line, of the packets on a network. delay, jitter: seconds.
    bandwidth: bytes per second, each way. cut_at: the link breaks after so many bytes, until restore().
    jitter, reorder: on a network only. All faults are drawn from `seed` and the number of the byte or packet.
    """

    _: KW_ONLY
    loss: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    bandwidth: float = math.inf
    cut_at: int | None = None
    jitter: float = 0.0
    reorder: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Start without links."""
        self.noises: list[Noise] = []  # one for each link, in the order of making
        self.proxies: list[TcpProxy] = []
        self.networks: list[Network] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LinkFaults:
        """Return self; links are made later."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all links."""
        self._stack.close()

    def serial(self, device: str, baud: int = 115200) -> str:
        """Return the path of a terminal for the server; `device`: path of the device's terminal or UNIX socket."""
        cable = self._cable(loose=True)
        cable.plug(open_end(device, baud))
        return cable.ends[0]

    def cable(self) -> tuple[str, str]:
        """Make a cable; return the paths of its terminals: (server's end, device's end)."""
        return self._cable(loose=False).ends

    def _cable(self, loose: bool) -> Cable:
        self._no_network_faults()
        noise = self._noise()
        return self._stack.enter_context(Cable(noise, delay=self.delay, bandwidth=self.bandwidth, loose=loose))

    def mqtt(self, url: str) -> str:
        """Return the URL through which a device reaches the broker at `url`, with cuts, stalls, delay and bandwidth."""
        self._no_network_faults()
        if self.loss or self.corrupt:
            raise ValueError("TCP hides loss and corruption of packets; for those use network()")
        broker = BrokerUrl.parse(url)
        if broker.scheme != "mqtt":
            raise ValueError(f"{broker}: the proxy passes mqtt:// only, since TLS would check its name; use network()")
        proxy = TcpProxy(broker.host, broker.port, self._noise(), delay=self.delay, bandwidth=self.bandwidth)
        self.proxies.append(self._stack.enter_context(proxy))
        user = f"{urlsplit(url).netloc.rpartition('@')[0]}@" if broker.user else ""
        return f"mqtt://{user}127.0.0.1:{proxy.port}"

    def network(self) -> Network:
        """Return two hosts with the faulty network between them. Needs root."""
        if self.cut_at is not None:
            raise ValueError("cut_at counts the bytes of a stream; use cut() and restore() on a network")
        bad = Network(loss=self.loss, corrupt=self.corrupt, delay=self.delay, jitter=self.jitter, reorder=self.reorder,
                      bandwidth=self.bandwidth, seed=self.seed)  # fmt: skip
        self.networks.append(self._stack.enter_context(bad))
        return bad

    def cut(self) -> None:
        """Break all links at once, until restore()."""
        for noise in self.noises:
            noise.is_cut = True
        for link in self._breakable():
            link.cut()

    def restore(self) -> None:
        """Undo cut() and stall() on all links."""
        for noise in self.noises:
            noise.is_cut = False
        for link in self._breakable():
            link.restore()

    def stall(self) -> None:
        """Pass no bytes to and from brokers, but keep connections open, until restore()."""
        for proxy in self.proxies:
            proxy.stall()

    def _breakable(self) -> list[TcpProxy | Network]:
        return [*self.proxies, *self.networks]

    def _noise(self) -> Noise:
        noise = Noise(self.loss, self.corrupt, self.cut_at, self.seed + 1000 * len(self.noises))
        self.noises.append(noise)
        return noise

    def _no_network_faults(self) -> None:
        if self.jitter or self.reorder:
            raise ValueError("jitter and reorder are for packets; for those use network()")


def open_end(path: str, baud: int) -> int:
    """Open a device's end, a terminal or a UNIX socket; return a new descriptor, which the caller owns."""
    if stat.S_ISSOCK(os.stat(path).st_mode):
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(path)
            return end.detach()
    with serial.Serial(path, baud, exclusive=True) as port:
        return os.dup(port.fileno())
