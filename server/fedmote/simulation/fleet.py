# SPDX-License-Identifier: Apache-2.0
"""The virtual fleet: a device with work is a C client; an idle one is parked as a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmote.simulation.battery import Batteries
from fedmote.simulation.clock import Clock
from fedmote.simulation.device import VirtualDevice
from fedmote.simulation.network import DOWN, UP, VirtualNetwork
from fedmote.simulation.population import Population
from fedmote.simulation.streams import mixed
from fedmote.simulation.workload import Workload
from fedmote.wire.Body import Body
from fedmote.wire.codec import encode
from fedmote_device import kernels

BATTERY_CHECK_S = 300.0  # seconds between two checks of the batteries
NOTICE_S = 45.0  # seconds until the broker notices a lost device: 1.5 times the keep-alive
_AT_MOST_ONCE = (Body.UpdateChunk, Body.Progress)
_WAKES = (Body.Plan, Body.Refusal)  # an idle device only for these; it ignores any other message

_CHARGING, _METERED, _BUSY = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Start:
    """How a run starts. hour: time of day. settle_s: seconds within which the first links come up."""

    seed: int
    hour: float
    settle_s: float


class ServerSide(Protocol):
    """The other end of the virtual links."""

    def receive(self, name: str, message: bytes) -> None:
        """Receive a message from a device."""
        ...

    def model_chunk(self, version: int, index: int) -> bytes | None:
        """Return a chunk that the broker has retained; None: it has none."""
        ...


class VirtualFleet:
    """All devices: those with work as C clients (`awake`), the others as numbers."""

    def __init__(
        self, population: Population, workload: Workload, clock: Clock, start: Start, server: ServerSide
    ) -> None:  # fmt: skip
        self.population, self.workload, self.clock, self.seed = population, workload, clock, start.seed
        self.server = server
        self.awake: dict[int, VirtualDevice] = {}
        self.most_awake = 0
        self._counted = [Counter[str]() for _ in population.classes]  # counters of parked clients, for each class
        self.steps = 0
        self._welcomed = [False] * len(population)
        self._width = len(str(len(population) - 1))
        links = [population.class_of(i).link for i in range(len(population))]
        self.network = VirtualNetwork(links, clock, start.seed, self._link_changed, start.settle_s)
        self.batteries = Batteries(
            [population.class_of(i).battery for i in range(len(population))],
            start.hour,
            np.random.default_rng([start.seed, 4]),
        )
        self._metered = np.array([_METERED * population.class_of(i).metered for i in range(len(population))])
        self._flags = self._flags_now()
        clock.call_at(0.0, self._check_batteries)

    def name(self, device: int) -> str:
        """Return the device's id."""
        return f"device-{device:0{self._width}}"

    def index(self, name: str) -> int:
        """Return which device has this id."""
        return int(name.removeprefix("device-"))

    # ---- the server's side of the links

    def send(self, name: str, message: bytes) -> None:
        """Send a device a message."""
        self.network.send(DOWN, self.index(name), message, self._arrived_down)

    def broadcast(self, message: bytes) -> None:
        """Send to all devices. An idle device ignores it, so only its bytes are counted."""
        for device in list(self.awake):
            if self._welcomed[device]:
                self.network.send(DOWN, device, message, self._arrived_down)
        idle = self.network.online - sum(self.network.up[device] for device in self.awake)
        self.network.counters["bytes_down_idle"] += idle * len(message)

    def retire(self, open_round: Callable[[str], int]) -> None:
        """Drop the work of offline devices whose round is over, as they would when they reconnect."""
        for device, woken in list(self.awake.items()):
            if not self.network.up[device] and woken.client.round != open_round(self.name(device)):
                self._park(device)

    def _arrived_down(self, device: int, message: bytes) -> None:
        self.batteries.spend(device, 0.0, len(message))
        if device not in self.awake:
            if kernels.verify(message) not in _WAKES or not self._welcomed[device]:
                return
            self._wake(device, resume=True)
        self.awake[device].inbox.append(message)
        self._poll_at(device, self.clock.now)

    def totals(self) -> dict[str, Counter[str]]:
        """Return the sum of all clients' counters, by name of class."""
        totals = {c.name: Counter(counted) for c, counted in zip(self.population.classes, self._counted, strict=True)}
        for device, woken in self.awake.items():
            totals[self.population.class_of(device).name].update(woken.counted())
        return totals

    # ---- waking and parking

    def _wake(self, device: int, resume: bool) -> VirtualDevice:
        seed = mixed(self.seed, 3, device) & 0xFFFFFFFF
        woken = VirtualDevice.create(self.population, self.workload, device, self.name(device), seed)
        if resume:
            woken.resume(self.clock.now, self.batteries.percent(device), int(self._flags[device]))
        else:
            woken.client.set_state(self.batteries.percent(device), int(self._flags[device]))
        self.awake[device] = woken
        self.most_awake = max(self.most_awake, len(self.awake))
        return woken

    def _park(self, device: int) -> None:
        parked = self.awake.pop(device)
        self._counted[self.population.class_index[device]].update(parked.counted())

    def _link_changed(self, device: int, up: bool) -> None:
        now = self.clock.now
        self._welcomed[device] = False
        if up:
            if device in self.awake:
                self.awake[device].client.restore_link()
            else:
                self._wake(device, resume=False)
            self._poll_at(device, now)
            return
        self.clock.call_at(now + NOTICE_S, self._publish_last_will, device, self.network.connection[device])
        if (woken := self.awake.get(device)) is not None:
            woken.client.cut_link()
            woken.inbox.clear()
            woken.fetching = False
            self._poll_at(device, now)

    def _publish_last_will(self, device: int, connection: int) -> None:
        """Publish the device's last will, unless its link has changed since it went down."""
        if self.network.connection[device] == connection:
            self.server.receive(self.name(device), encode("DeviceState", online=False, battery=255))

    def _flags_now(self) -> NDArray[np.int64]:
        charging = _CHARGING * self.batteries.charging
        flags = charging + self._metered + _BUSY * self.batteries.busy()
        return np.asarray(flags, np.int64)

    def _check_batteries(self) -> None:
        """Advance the batteries; a device whose state changes tells the server."""
        self.batteries.advance(self.clock.now)
        flags = self._flags_now()
        for device in np.flatnonzero(flags != self._flags).tolist():
            if device not in self.awake and self._welcomed[device]:
                self._wake(device, resume=True)  # in the state in which it was parked
            self._flags[device] = flags[device]
            if device in self.awake:
                self.awake[device].client.set_state(self.batteries.percent(device), int(flags[device]))
                self._poll_at(device, self.clock.now)
        for device, on in enumerate(self.batteries.on.tolist()):
            self.network.power(device, on)
            if not on and device in self.awake:
                self._park(device)  # without power it loses all its state
        self.clock.call_at(self.clock.now + BATTERY_CHECK_S, self._check_batteries)

    # ---- polling a device

    def _poll_at(self, device: int, time: float) -> None:
        woken = self.awake[device]
        time = max(time, woken.busy_until)
        if not self.clock.now <= woken.due <= time:
            woken.due = time
            self.clock.call_at(time, self._poll, device, time)

    def _poll(self, device: int, due: float) -> None:
        woken = self.awake.get(device)
        if woken is None or woken.due != due:
            return  # it was parked, or polled before
        now = self.clock.now
        woken.due = -1.0
        outcome = woken.poll(now)
        if outcome.steps:
            self.steps += 1
            self.batteries.spend(device, woken.step_s, 0)
        next_poll = now + outcome.wait_s
        free_at = self._send_waiting(woken)
        if outcome.steps:
            self._poll_at(device, next_poll)
        elif woken.client.state in ("idle", "offline") and free_at <= now and not woken.inbox:
            self._park(device)  # it has no work and no message
        else:
            self._poll_at(device, min(next_poll, free_at) if free_at > now else next_poll)

    def _send_waiting(self, woken: VirtualDevice) -> float:
        """Send a waiting message, if the link is up and free; return when the link is free again."""
        device, now = woken.index, self.clock.now
        if not self.network.up[device]:
            return now
        if not self._welcomed[device]:
            self._welcomed[device] = woken.client.online
        if self.network.free_at(device) <= now and (message := woken.client.take()) is not None:
            self._send_up(device, message)
        if woken.wants_chunk:
            self._fetch(woken)
        return self.network.free_at(device)

    def _send_up(self, device: int, message: bytes) -> None:
        self.batteries.spend(device, 0.0, len(message))
        repeat = kernels.verify(message) not in _AT_MOST_ONCE
        self.network.send(UP, device, message, self._arrived_up, at_least_once=repeat)

    def _arrived_up(self, device: int, message: bytes) -> None:
        self.server.receive(self.name(device), message)

    def _fetch(self, woken: VirtualDevice) -> None:
        """Subscribe to the model chunk that the client wants. It arrives a round trip later, if the broker has it."""
        assert woken.client.wanted is not None
        chunk = self.server.model_chunk(*woken.client.wanted)
        woken.fetching = True
        if chunk is None:
            woken.lose_chunk()
            return
        latency_s = self.population.class_of(woken.index).link.latency_ms / 1000
        self.network.send(DOWN, woken.index, chunk, self._chunk_arrived, at_least_once=False,
                          on_lost=self._chunk_lost, delay_s=latency_s)  # fmt: skip

    def _chunk_lost(self, device: int) -> None:
        if (woken := self.awake.get(device)) is not None:
            woken.lose_chunk()

    def _chunk_arrived(self, device: int, message: bytes) -> None:
        if (woken := self.awake.get(device)) is not None:
            woken.fetching = False
            self._arrived_down(device, message)
