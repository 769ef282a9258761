# SPDX-License-Identifier: Apache-2.0
"""The virtual fleet: wakes a device when it has something to do, and parks it as a number when it has not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedmote.simulation.battery import Batteries
from fedmote.simulation.clock import Clock
from fedmote.simulation.device import VirtualDevice
from fedmote.simulation.draws import mixed
from fedmote.simulation.network import DOWN, UP, Network
from fedmote.simulation.population import Population
from fedmote.wire.Body import Body
from fedmote.wire.codec import encode
from fedmote_device import kernels

LOOK_S = 300.0  # between looks at the batteries
NOTICE_S = 45.0  # after which a broker notices that a device is gone: 1.5 times the keep-alive
_AT_MOST_ONCE = (Body.UpdateChunk, Body.Progress)
_WAKES = (Body.Plan, Body.Refusal)  # of an idle device; it has no use for anything else

_CHARGING, _METERED, _BUSY = 1, 2, 4


class VirtualFleet:
    """All devices: the few that work as C clients, the others as numbers.

    to_server: takes (name, message) that arrived. model_chunk: returns what the broker has retained, None for nothing.
    """

    def __init__(
        self, population: Population, clock: Clock, seed: int, start_h: float,
        to_server: Callable[[str, bytes], None], model_chunk: Callable[[int, int], bytes | None], settle_s: float,
    ) -> None:  # fmt: skip
        self.population, self.clock, self.seed = population, clock, seed
        self.to_server, self.model_chunk = to_server, model_chunk
        self.awake: dict[int, VirtualDevice] = {}
        self.most_awake = 0
        self._counted = [Counter[str]() for _ in population.classes]  # by clients that were parked
        self.steps = 0
        self._greeted = [False] * len(population)
        self._width = len(str(len(population) - 1))
        links = [population.of(i).link for i in range(len(population))]
        self.network = Network(links, clock, seed, self._link_changed, settle_s)
        self.batteries = Batteries(
            [population.of(i).battery for i in range(len(population))], start_h, np.random.default_rng([seed, 4])
        )
        self._metered = np.array([_METERED * population.of(i).metered for i in range(len(population))])
        self._flags = self._flags_now()
        clock.at(0.0, self._look)

    def name(self, device: int) -> str:
        """Return the device's id."""
        return f"device-{device:0{self._width}}"

    def index(self, name: str) -> int:
        """Return which device has this id."""
        return int(name.removeprefix("device-"))

    # ---- the server's side of the links

    def send(self, name: str, message: bytes) -> None:
        """Send a device a message."""
        self.network.send(DOWN, self.index(name), message, self._arrived)

    def broadcast(self, message: bytes) -> None:
        """Send to all. Those that idle have no use for it; that they received it is counted."""
        for device in list(self.awake):
            if self._greeted[device]:
                self.network.send(DOWN, device, message, self._arrived)
        idle = self.network.online - sum(self.network.up[device] for device in self.awake)
        self.network.counters["bytes_down_idle"] += idle * len(message)

    def retire(self, open_round: Callable[[str], int]) -> None:
        """Forget the work of devices that are away when its round is over: they would do so when they come back."""
        for device, woken in list(self.awake.items()):
            if not self.network.up[device] and woken.client.round != open_round(self.name(device)):
                self._park(device)

    def _arrived(self, device: int, message: bytes) -> None:
        self.batteries.spend(device, 0.0, len(message))
        if device not in self.awake:
            if kernels.verify(message) not in _WAKES or not self._greeted[device]:
                return
            self._wake(device, greet=True)
        self.awake[device].inbox.append(message)
        self._turn_at(device, self.clock.now)

    def totals(self) -> dict[str, Counter[str]]:
        """Return what all clients counted, by the name of their class."""
        totals = {c.name: Counter(counted) for c, counted in zip(self.population.classes, self._counted, strict=True)}
        for device, woken in self.awake.items():
            totals[self.population.of(device).name].update(woken.counted())
        return totals

    # ---- coming and going

    def _wake(self, device: int, greet: bool) -> VirtualDevice:
        seed = mixed(self.seed, 3, device) & 0xFFFFFFFF
        woken = VirtualDevice.make(self.population, device, self.name(device), seed)
        if greet:
            woken.greet(self.clock.now, self.batteries.percent(device), int(self._flags[device]))
        else:
            woken.client.set_state(self.batteries.percent(device), int(self._flags[device]))
        self.awake[device] = woken
        self.most_awake = max(self.most_awake, len(self.awake))
        return woken

    def _park(self, device: int) -> None:
        parked = self.awake.pop(device)
        self._counted[self.population.kind[device]].update(parked.counted())

    def _link_changed(self, device: int, up: bool) -> None:
        now = self.clock.now
        self._greeted[device] = False
        if up:
            if device in self.awake:
                self.awake[device].client.restore_link()
            else:
                self._wake(device, greet=False)
            self._turn_at(device, now)
            return
        self.clock.at(now + NOTICE_S, self._will, device, self.network.connection[device])
        woken = self.awake.get(device)
        if woken is None:
            return
        woken.client.cut_link()
        woken.inbox.clear()
        woken.fetching = False
        self._turn_at(device, now)

    def _will(self, device: int, connection: int) -> None:
        """The broker noticed that the device is gone and says what the device left as its will."""
        if self.network.connection[device] == connection:
            self.to_server(self.name(device), encode("DeviceState", online=False, battery=255))

    def _flags_now(self) -> NDArray[np.int64]:
        charging = _CHARGING * self.batteries.charging
        flags = charging + self._metered + _BUSY * self.batteries.busy()
        return np.asarray(flags, np.int64)

    def _look(self) -> None:
        """Let time pass for the batteries; devices whose state so changes tell it."""
        self.batteries.advance(self.clock.now)
        flags = self._flags_now()
        for device in np.flatnonzero(flags != self._flags).tolist():
            if device not in self.awake and self._greeted[device]:
                self._wake(device, greet=True)  # as it was when it was parked
            self._flags[device] = flags[device]
            if device in self.awake:
                self.awake[device].client.set_state(self.batteries.percent(device), int(flags[device]))
                self._turn_at(device, self.clock.now)
        for device, on in enumerate(self.batteries.on.tolist()):
            self.network.power(device, on)
            if not on and device in self.awake:
                self._park(device)  # without power it forgets everything
        self.clock.at(self.clock.now + LOOK_S, self._look)

    # ---- a device's turn

    def _turn_at(self, device: int, time: float) -> None:
        woken = self.awake[device]
        time = max(time, woken.busy_until)
        if not self.clock.now <= woken.due <= time:
            woken.due = time
            self.clock.at(time, self._turn, device, time)

    def _turn(self, device: int, due: float) -> None:
        woken = self.awake.get(device)
        if woken is None or woken.due != due:
            return  # it was parked, or had a turn before
        now = self.clock.now
        woken.due = -1.0
        outcome = woken.turn(now)
        if outcome.steps:
            self.steps += 1
            self.batteries.spend(device, woken.step_s, 0)
        rest = now + outcome.rest_s
        free_at = self._speak(woken)
        if outcome.steps:
            self._turn_at(device, rest)
        elif woken.client.state in ("idle", "offline") and free_at <= now and not woken.inbox:
            self._park(device)  # nothing to do and nothing to say
        else:
            self._turn_at(device, min(rest, free_at) if free_at > now else rest)

    def _speak(self, woken: VirtualDevice) -> float:
        """Send what waits, if the link is there and free; return when it will be."""
        device, now = woken.index, self.clock.now
        if not self.network.up[device]:
            return now
        if not self._greeted[device]:
            self._greeted[device] = woken.client.online
        if self.network.free_at(device) <= now and (message := woken.client.take()) is not None:
            self._send_up(device, message)
        if woken.wants_chunk:
            self._fetch(woken)
        return self.network.free_at(device)

    def _send_up(self, device: int, message: bytes) -> None:
        self.batteries.spend(device, 0.0, len(message))
        repeated = kernels.verify(message) not in _AT_MOST_ONCE
        self.network.send(UP, device, message, self._heard, repeated=repeated)

    def _heard(self, device: int, message: bytes) -> None:
        self.to_server(self.name(device), message)

    def _fetch(self, woken: VirtualDevice) -> None:
        """Subscribe to the model chunk that the client waits for; it arrives a round trip later, if it is there."""
        assert woken.client.wanted is not None
        chunk = self.model_chunk(*woken.client.wanted)
        woken.fetching = True
        if chunk is None:
            self._chunk_lost(woken.index)
            return
        latency_s = self.population.of(woken.index).link.latency_ms / 1000
        self.network.send(DOWN, woken.index, chunk, self._chunk_arrived, repeated=False, lost=self._chunk_lost,
                          ahead_s=latency_s)  # fmt: skip

    def _chunk_lost(self, device: int) -> None:
        woken = self.awake.get(device)
        if woken is not None and woken.fetching:
            woken.fetching = False
            woken.fetch_lost = woken.client.counters["timeouts"]

    def _chunk_arrived(self, device: int, message: bytes) -> None:
        woken = self.awake.get(device)
        if woken is not None:
            woken.fetching = False
            self._arrived(device, message)
