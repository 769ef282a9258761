# SPDX-License-Identifier: Apache-2.0
"""What a test federation consists of."""

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


@dataclass(kw_only=True)
class FederationSetup:
    """What a test federation consists of.

    devices: desktop devices, "desktop-0" and so on; the last `serial` of them on cables, the others on the broker.
    ports: the server's serial ports of other devices. trainers: one for each desktop device; None: the digits, dealt
    out among the devices and `others` further shares. layout: of the model; None: the digits' network. network: broker
    and server are on its one host, the desktop devices on the other. through: given the broker's URL, returns the one
    that the devices use; cable: makes a serial cable, (server's end, device's end): LinkFaults has both. broker: if one
    is started; None: if a device needs it. options: of every Device. rounds: the federation ends after so many. held:
    desktop devices that stop in the middle of each round's training until they are released; so the round stays open.
    """

    devices: int = 2
    serial: int = 0
    ports: Sequence[str | Port] = ()
    name: str = "test"
    layout: Layout | None = None
    trainers: Sequence[Any] | None = None
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
        """Refuse numbers that do not fit together. ValueError: what is wrong."""
        if not 0 <= self.serial <= self.devices:
            raise ValueError(f"devices {self.devices}, serial {self.serial}: serial must be from 0 to devices")
        if self.trainers is not None and len(self.trainers) != self.devices:
            raise ValueError(f"{len(self.trainers)} trainers for {self.devices} devices: there must be one for each")
        if not set(self.held) <= set(range(self.devices)):
            held = list(self.held)
            raise ValueError(f"held {held}: they must be numbers of desktop devices, 0 to {self.devices - 1}")

    @property
    def needs_broker(self) -> bool:
        """Whether a broker is started."""
        return self.devices > self.serial if self.broker is None else self.broker
