# SPDX-License-Identifier: Apache-2.0
"""A link that the server does not know, made by a user of the Python API alone: datagrams over UDP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fedmote import Federation, Policy, Record, Server, Training, dense
from fedmote.links.link import Lost, Receive
from fedmote.wire.codec import decode, text
from fedmote.wire.Hello import Hello
from fedmote_device import CTrainer, Device

WIDTHS = (16, 4)
ROUNDS = 3
DEVICES = 3


class UdpLink(asyncio.DatagramProtocol):
    """One socket. An address belongs to the device that said Hello from it last."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.devices: dict[Any, str] = {}
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        hello = decode(data)
        if isinstance(hello, Hello):
            self.devices[addr] = text(hello.DeviceId())
        if addr in self.devices:
            self.receive(self.devices[addr], data, time.monotonic(), self.send)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    async def stop(self) -> None:
        self.transport.close()
        self.stopped = True

    def send(self, device: str, message: bytes) -> None:
        for address, name in self.devices.items():
            if name == device:
                self.transport.sendto(message, address)

    def broadcast(self, message: bytes) -> None:
        for device in set(self.devices.values()):
            self.send(device, message)

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Do nothing: devices ask for each chunk."""


@dataclass
class UdpSettings:
    """An entry of Federation.links."""

    made: UdpLink | None = None

    @property
    def addresses(self) -> list[str]:
        return ["udp://127.0.0.1"]

    def make_link(self, federation: str, receive: Receive, lost: Lost) -> UdpLink:
        self.made = UdpLink(receive)
        return self.made


class UdpDevice(asyncio.DatagramProtocol):
    """A device of the C library, whose messages this socket carries."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.device.deliver(data, int(time.monotonic() * 1000))

    async def run(self) -> None:
        """Run until cancelled, then close the socket."""
        try:
            await self._run()
        finally:
            self.transport.close()

    async def _run(self) -> None:
        while True:
            self.device.poll(int(time.monotonic() * 1000))
            while (message := self.device.take()) is not None:
                self.transport.sendto(message)
            await asyncio.sleep(0.001)


async def connect(device: Device, address: Any) -> asyncio.Task[None]:
    """Run a device on a socket of its own."""
    client = UdpDevice(device)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: client, remote_addr=address)
    return asyncio.create_task(client.run())


async def train(server: Server, settings: UdpSettings) -> None:
    """Run the server's rounds, with devices on its socket."""
    rng = np.random.default_rng(5)
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ROUNDS, ready.set))
    await ready.wait()
    assert settings.made is not None
    address = settings.made.transport.get_extra_info("sockname")
    tasks = []
    for i in range(DEVICES):
        trainer = CTrainer(WIDTHS, rng.standard_normal((40, WIDTHS[0]), np.float32), rng.integers(0, WIDTHS[1], 40))
        device = Device(f"d{i}", "memory:request", federation="udp", trainer=trainer, seed=i + 1, retry_ms=(50, 500))
        tasks.append(await connect(device, address))
    await asyncio.wait_for(running, 60)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_a_link_of_the_users_own() -> None:
    """It takes one class for the link and one for its settings; no file of the server is touched."""
    settings = UdpSettings()
    records: list[Record] = []
    policy = Policy(devices=DEVICES, min_reports=DEVICES, goal=1.0, chunk_elements=16)
    federation = Federation("udp", dense(WIDTHS), None, Training(epochs=2), policy, links=(settings,))
    server = Server(federation, on_round=records.append)
    first = server.model
    asyncio.run(train(server, settings))
    assert [record.reported for record in records] == [DEVICES] * ROUNDS
    assert not np.array_equal(first, server.model)
    assert settings.made is not None and settings.made.stopped
    assert federation.addresses == ["udp://127.0.0.1"]
