# SPDX-License-Identifier: Apache-2.0
"""What a server runs: one federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmote.fleet.limits import Limits
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.learning.guard import Bounds
from fedmote.links.link import LinkSettings
from fedmote.links.mqtt import MqttSettings
from fedmote.links.serial import Port, SerialSettings
from fedmote.model.layout import Layout
from fedmote.rounds.policy import Policy, Training
from fedmote.tasks.base import TaskLimits


@dataclass(frozen=True)
class Federation:
    """One training effort.

    name: 1 to 32 of [A-Za-z0-9_.-]. broker: mqtt://[user:password@]host[:port], mqtts:// for TLS, None for none. ports:
    serial lines. initial: the first model; None: Glorot's from the policy's seed. ca_file: who signed the broker's
    certificate; None: the system's authorities. selection: client selection. pace: when devices connect. links: links
    besides those of broker and ports. bounds: of each update's influence.
    """

    name: str
    layout: Layout
    broker: str | None
    training: Training = field(default_factory=Training)
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    database: str | Path = ":memory:"
    initial: NDArray[np.float32] | None = None
    ports: tuple[Port, ...] = ()
    ca_file: Path | None = None
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)
    tasks: TaskLimits = field(default_factory=TaskLimits)
    links: tuple[LinkSettings, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def all_links(self) -> tuple[LinkSettings, ...]:
        """All links: the broker's, the serial ports', and the others."""
        mqtt = () if self.broker is None else (MqttSettings(self.broker, self.ca_file),)
        serial = (SerialSettings(self.ports),) if self.ports else ()
        return (*mqtt, *serial, *self.links)

    @property
    def addresses(self) -> list[str]:
        """Where devices connect, for people: without passwords. Empty: there is no link."""
        return [address for link in self.all_links for address in link.addresses]
