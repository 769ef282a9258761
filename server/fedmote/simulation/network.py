# SPDX-License-Identifier: Apache-2.0
"""Virtual links: how long a message takes, whether it arrives, and when a device is online."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedmote.simulation.clock import Clock
from fedmote.simulation.streams import RandomStreams

RESEND_S = 1.0  # seconds until a link repeats a message that must arrive at least once
_HEAD = struct.Struct("<dIB")

UP, DOWN = 0, 1


@dataclass(frozen=True, slots=True)
class LinkModel:
    """One device's link.

    up_bytes_s, down_bytes_s: bandwidth. latency_ms: one way, in addition. loss: share of the attempts to send a message
    that fail; a message that must arrive at least once is tried again after RESEND_S, a chunk is lost. mean_up_s,
    mean_down_s: means of the exponential times for which the link is up and down; mean_down_s 0: it is always up.
    """

    up_bytes_s: float = 20_000.0
    down_bytes_s: float = 50_000.0
    latency_ms: float = 80.0
    loss: float = 0.0
    mean_up_s: float = 7200.0
    mean_down_s: float = 3600.0


class VirtualNetwork:
    """Every device's link to the server.

    on_link_changed: called with a device and whether its link is up. When a link goes down, the messages in transit
    are lost, in both directions. settle_s: seconds within which the first links come up, so that not all do so at once.
    """

    def __init__(
        self, links: Sequence[LinkModel], clock: Clock, seed: int, on_link_changed: Callable[[int, bool], None],
        settle_s: float = 600.0,
    ) -> None:  # fmt: skip
        self.links, self.clock, self.on_link_changed = links, clock, on_link_changed
        count = len(links)
        self.up = [False] * count
        self.connection = [0] * count  # changes whenever the link does
        self.counters: Counter[str] = Counter()
        self.digest = hashlib.sha256()  # hash of each arrived message, its time and its device
        self._radio_up = [False] * count  # `up` also needs power
        self._powered = [True] * count
        self._free = ([0.0] * count, [0.0] * count)
        self._outages = RandomStreams(seed, 1, count)
        self._losses = RandomStreams(seed, 2, count)
        for device, link in enumerate(links):
            share = link.mean_up_s / (link.mean_up_s + link.mean_down_s)
            radio_up = self._outages.uniform(device) < share
            clock.call_at(settle_s * self._outages.uniform(device), self._toggle, device, radio_up)

    @property
    def online(self) -> int:
        """Number of links that are up."""
        return sum(self.up)

    def power(self, device: int, on: bool) -> None:
        """Switch the device on or off."""
        self._powered[device] = on
        self._update(device)

    def _toggle(self, device: int, radio_up: bool) -> None:
        self._radio_up[device] = radio_up
        self._update(device)
        link = self.links[device]
        if not radio_up or link.mean_down_s:
            mean = link.mean_up_s if radio_up else link.mean_down_s
            self.clock.call_at(
                self.clock.now + self._outages.exponential(device, mean), self._toggle, device, not radio_up
            )

    def _update(self, device: int) -> None:
        up = self._radio_up[device] and self._powered[device]
        if up != self.up[device]:
            self.up[device] = up
            self.connection[device] += 1
            self.counters["connections"] += up
            self._free[UP][device] = self._free[DOWN][device] = self.clock.now
            self.on_link_changed(device, up)

    def free_at(self, device: int) -> float:
        """Return when the device's last message has been sent."""
        return self._free[UP][device]

    def send(
        self, direction: int, device: int, message: bytes, on_arrival: Callable[..., None], *args: Any,
        at_least_once: bool = True, on_lost: Callable[[int], None] | None = None, delay_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Send a message UP or DOWN; `on_arrival(device, message, *args)` is called when it arrives.

        at_least_once: send it again until it arrives, while the link is up. on_lost: called with the device if the
        message is lost. delay_s: seconds from now until it is sent, as for an answer.
        """
        link, free, clock = self.links[device], self._free[direction], self.clock
        self.counters["sent_up" if direction == UP else "sent_down"] += len(message)
        if not self.up[device]:
            self.counters["bytes_lost"] += len(message)
            return
        seconds = len(message) / (link.up_bytes_s if direction == UP else link.down_bytes_s)
        out = free[device] = max(clock.now + delay_s, free[device]) + seconds
        arrival = out + link.latency_ms / 1000
        while link.loss and self._losses.uniform(device) < link.loss:
            self.counters["tries_failed"] += 1
            if not at_least_once:
                self.counters["bytes_lost"] += len(message)
                if on_lost is not None:
                    clock.call_at(arrival, self._lose, device, self.connection[device], on_lost)
                return
            arrival += RESEND_S
        clock.call_at(arrival, self._arrive, direction, device, self.connection[device], message, on_arrival, args)

    def _lose(self, device: int, connection: int, on_lost: Callable[[int], None]) -> None:
        if connection == self.connection[device]:
            on_lost(device)

    def _arrive(
        self,
        direction: int,
        device: int,
        connection: int,
        message: bytes,
        on_arrival: Callable[..., None],
        args: tuple[Any, ...],
    ) -> None:
        if connection != self.connection[device]:
            self.counters["bytes_lost"] += len(message)
            return
        self.counters["bytes_up" if direction == UP else "bytes_down"] += len(message)
        self.digest.update(_HEAD.pack(self.clock.now, device, direction))
        self.digest.update(message)
        on_arrival(device, message, *args)
