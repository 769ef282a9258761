# SPDX-License-Identifier: Apache-2.0
"""The strategies that federation.toml can name. A new one is a file beside this one and a line here."""

from __future__ import annotations

from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova

STRATEGIES: dict[str, type[FedAvg] | type[FedNova]] = {"fedavg": FedAvg, "fednova": FedNova}
"""Each strategy's class by the name that federation.toml gives."""
