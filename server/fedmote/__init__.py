# SPDX-License-Identifier: Apache-2.0
"""fedmote: federated learning for devices that Python cannot reach.

What is listed in `__all__` is the public API, and only that is promised to stay. Names are imported when first used,
so that `import fedmote` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmote.config.settings import Settings, load
    from fedmote.errors import BrokerError, ConfigError, StoreError, StoreUnavailableError, StrategyError, TaskError
    from fedmote.fleet.limits import Limits
    from fedmote.fleet.pace import Pace
    from fedmote.fleet.selection import Selection
    from fedmote.learning.accumulator import Accumulator, WeightedMean
    from fedmote.learning.guard import Bounds
    from fedmote.learning.strategies.fedavg import FedAvg
    from fedmote.learning.strategies.fednova import FedNova
    from fedmote.learning.strategy import Strategy
    from fedmote.learning.update import Update
    from fedmote.links.broker import private_broker
    from fedmote.links.link import Link, LinkSettings
    from fedmote.links.serial import Port
    from fedmote.model.layout import Layout, Tensor, dense
    from fedmote.rounds.policy import Policy, Training
    from fedmote.rounds.record import Record
    from fedmote.server.federation import Federation
    from fedmote.server.server import Server, run_all
    from fedmote.tasks.base import TaskLimits
    from fedmote.tasks.evaluate import Evaluate
    from fedmote.tasks.heavy_hitters import HeavyHitters
    from fedmote.tasks.histogram import Histogram
    from fedmote.tasks.quantiles import Quantiles
    from fedmote.tasks.release import Release
    from fedmote.tasks.rollback import RollBack

__version__ = "0.1.0"
_HOMES = {
    "config.settings": ("Settings", "load"),
    "errors": ("BrokerError", "ConfigError", "StoreError", "StoreUnavailableError", "StrategyError", "TaskError"),
    "fleet.limits": ("Limits",),
    "fleet.pace": ("Pace",),
    "fleet.selection": ("Selection",),
    "learning.accumulator": ("Accumulator", "WeightedMean"),
    "learning.guard": ("Bounds",),
    "learning.strategies.fedavg": ("FedAvg",),
    "learning.strategies.fednova": ("FedNova",),
    "learning.strategy": ("Strategy",),
    "learning.update": ("Update",),
    "links.broker": ("private_broker",),
    "links.link": ("Link", "LinkSettings"),
    "links.serial": ("Port",),
    "model.layout": ("Layout", "Tensor", "dense"),
    "rounds.policy": ("Policy", "Training"),
    "rounds.record": ("Record",),
    "server.federation": ("Federation",),
    "server.server": ("Server", "run_all"),
    "tasks.base": ("TaskLimits",),
    "tasks.evaluate": ("Evaluate",),
    "tasks.heavy_hitters": ("HeavyHitters",),
    "tasks.histogram": ("Histogram",),
    "tasks.quantiles": ("Quantiles",),
    "tasks.release": ("Release",),
    "tasks.rollback": ("RollBack",),
}
"""Where each public name lives: module below fedmote -> names."""

_HOME_OF = {name: f"fedmote.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Accumulator",
    "Bounds",
    "BrokerError",
    "ConfigError",
    "Evaluate",
    "FedAvg",
    "FedNova",
    "Federation",
    "HeavyHitters",
    "Histogram",
    "Layout",
    "Limits",
    "Link",
    "LinkSettings",
    "Pace",
    "Policy",
    "Port",
    "Quantiles",
    "Record",
    "Release",
    "RollBack",
    "Selection",
    "Server",
    "Settings",
    "StoreError",
    "StoreUnavailableError",
    "Strategy",
    "StrategyError",
    "TaskError",
    "TaskLimits",
    "Tensor",
    "Training",
    "Update",
    "WeightedMean",
    "__version__",
    "dense",
    "load",
    "private_broker",
    "run_all",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'fedmote' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
