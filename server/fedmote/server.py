# SPDX-License-Identifier: Apache-2.0
"""The shell: links, fleet, rounds and clock tied together on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmote.layout import Layout
from fedmote.links.mqtt import MqttLink
from fedmote.round import Policy, Record, Rounds, Training
from fedmote.session import Fleet, Limits
from fedmote.store import Store
from fedmote.strategy import FedAvg, Strategy


@dataclass(frozen=True)
class Federation:
    """One training effort.

    name: 1 to 32 of [A-Za-z0-9_.-]. initial: the first model; None: Glorot's from the policy's seed.
    """

    name: str
    layout: Layout
    broker: str
    training: Training = field(default_factory=Training)
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    database: str | Path = ":memory:"
    initial: NDArray[np.float32] | None = None


class Server:
    """An aggregation server.

    strategy: how updates become a model (FedAvg by default). evaluate: called with every new model; its figures go
    into the log. on_round: called with the record of each committed round.
    """

    def __init__(
        self,
        federation: Federation,
        strategy: Strategy | None = None,
        *,
        evaluate: Callable[[NDArray[np.float32]], dict[str, float]] | None = None,
        on_round: Callable[[Record], None] | None = None,
    ) -> None:
        self.federation = federation
        self.strategy = strategy or FedAvg()
        self.evaluate, self.on_round = evaluate, on_round
        initial = federation.initial
        if initial is None:
            initial = federation.layout.glorot(federation.policy.seed)
        self.store = Store(federation.database, federation.layout, initial)

    @property
    def model(self) -> NDArray[np.float32]:
        """The last committed model, flat."""
        return self.store.latest()[2]

    async def run(self, rounds: int | None = None, ready: Callable[[], None] | None = None) -> None:
        """Run until round `rounds` is committed, for ever without it. `ready`: called when devices may connect."""
        federation = self.federation
        wake = asyncio.Event()

        def receive(device: str, message: bytes) -> None:
            self.fleet.now = time.monotonic()
            self.fleet.receive(device, message)
            wake.set()

        self.link = link = MqttLink(federation.broker, federation.name, receive)
        self.fleet = Fleet(federation.layout, link.send, None, federation.limits)  # type: ignore[arg-type]
        await link.start()
        self.rounds = self.fleet.work = machine = Rounds(
            self.fleet,
            self.store,
            self.strategy,
            federation.training,
            federation.policy,
            broadcast=link.broadcast,
            publish=link.publish_model,
            evaluate=self.evaluate,
            on_commit=self.on_round,
            last_round=rounds,
        )
        if ready is not None:
            ready()
        try:
            while not machine.done:
                due = machine.tick(time.monotonic())
                wait = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), wake.set)
                await wake.wait()
                wait.cancel()
                wake.clear()
        finally:
            await link.stop()
