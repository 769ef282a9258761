# SPDX-License-Identifier: Apache-2.0
"""The real server and real C clients on a real mosquitto that fails: every update counts once, or not at all."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from real_broker import CHUNKS, PUBACK, PUBLISH, Broker, Cut, Devices, Packet, Proxy, federation, mean, serve, until

from fedmote.round import Record
from fedmote.server import Server

MakeBroker = Callable[..., Broker]
MakeProxy = Callable[[Broker], Proxy]


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[MakeBroker]:
    made: list[Broker] = []

    def make(started: bool = True, **options: object) -> Broker:
        made.append(Broker(tmp_path, **options))  # type: ignore[arg-type]
        if started:
            made[-1].start()
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    made: list[Proxy] = []

    def make(broker: Broker) -> Proxy:
        made.append(Proxy(broker.port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def new_server(broker: str, folder: Path, count: int, **policy: object) -> tuple[Server, list[Record]]:
    records: list[Record] = []
    return Server(federation(broker, folder, count, **policy), on_round=records.append), records


def assert_each_once(server: Server, devices: Devices, records: list[Record], rounds: int = 1) -> None:
    """All devices are in the model once and in full, and trained once a round for it."""
    count = len(devices.all)
    assert [(r.round, r.reported, r.partial) for r in records] == [(n, count, 0) for n in range(1, rounds + 1)]
    assert np.array_equal(server.model, mean(devices.trainers, rounds))
    assert devices.fits == [list(range(1, rounds + 1))] * count


def test_nothing_goes_wrong(tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy) -> None:
    """What the other tests spoil: three rounds, each chunk sent once."""
    broker = make_broker()
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 4)
    with Devices(proxy.url, 4) as devices:
        asyncio.run(serve(server, 3))
        assert_each_once(server, devices, records, 3)
        assert devices.sum("chunks_out") == 3 * 4 * CHUNKS
        assert sorted(proxy.connections) == ["f.d0", "f.d1", "f.d2", "f.d3"]
