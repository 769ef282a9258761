# SPDX-License-Identifier: Apache-2.0
"""The parts of a test federation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmote.faults.tun import Network
from fedmote.fleet.limits import Limits
from fedmote.learning.strategy import Strategy
from fedmote.links.serial import Port
from fedmote.model.layout import Layout
from fedmote.rounds.policy import Policy, Training
from fedmote_device import CTrainer, NumPyClient

Trainer = CTrainer | NumPyClient


@dataclass(kw_only=True)
class FederationSetup:
    """The parts of a test federation.

    devices: desktop devices, "desktop-0" and so on; the last `serial` of them on cables, the others on the broker.
    ports: the server's serial ports of other devices. trainers: one for each desktop device; None: the digits, dealt
    out among the devices and `others` further shares. layout: of the model; None: the digits' network. network: broker
    and server run on its host "server", the desktop devices on "device". through: given the broker's URL, returns the
    one that the devices use; cable: makes a serial cable, (server's end, device's end): LinkFaults has both. broker:
    whether to start one; None: if a device needs it. options: of every Device. rounds: after which the federation ends.
    held: desktop devices that pause in the middle of each round's training until released, so the round stays open.
    """

    devices: int = 2
    serial: int = 0
    ports: Sequence[str | Port] = ()
    name: str = "test"
    layout: Layout | None = None
    trainers: Sequence[Trainer] | None = None
    others: int = 0
    policy: Policy | None = None
    training: Training | None = None
    limits: Limits | None = None
    strategy: Strategy | None = None
    seed: int = 1
    network: Network | None = None
    through: Callable[[str], str] | None = None
    cable: Callable[[], tuple[str, str]] | None = None
    broker: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int = 10
    held: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check that the numbers fit together. ValueError: what is wrong."""
        if not 0 <= self.serial <= self.devices:
            raise ValueError(f"devices {self.devices}, serial {self.serial}: serial must be from 0 to devices")
        if self.trainers is not None and len(self.trainers) != self.devices:
            raise ValueError(f"{len(self.trainers)} trainers for {self.devices} devices: there must be one for each")
        if not set(self.held) <= set(range(self.devices)):
            held = list(self.held)
            raise ValueError(f"held {held}: they must be numbers of desktop devices, 0 to {self.devices - 1}")

    @property
    def needs_broker(self) -> bool:
        """Whether to start a broker."""
        return self.devices > self.serial if self.broker is None else self.broker
