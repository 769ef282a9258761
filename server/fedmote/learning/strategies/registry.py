# SPDX-License-Identifier: Apache-2.0
"""The strategies that federation.toml can name. A new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Callable

from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.learning.strategy import Strategy

STRATEGIES: dict[str, Callable[[], Strategy]] = {"fedavg": FedAvg, "fednova": FedNova}
"""Each strategy by the name that federation.toml gives."""
