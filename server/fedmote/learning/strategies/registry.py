# SPDX-License-Identifier: Apache-2.0
"""The strategies that federation.toml can name. A new one is a file beside this one and a line here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.learning.strategy import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {"fedavg": FedAvg, "fednova": FedNova}
"""Each strategy by the name that federation.toml gives."""


def make_strategy(name: str, options: Mapping[str, Any], folder: Path) -> Strategy:
    """Make a strategy: a key of STRATEGIES, or "module:Class" for a class of the user's own.

    options: keyword arguments of the class. folder: where the module is searched first. ValueError: what is wrong.
    """
    make = _find(name, folder) if ":" in name else STRATEGIES.get(name)
    if make is None:
        raise ValueError(f"{name!r} must be one of {', '.join(STRATEGIES)}, or module:Class for your own")
    try:
        strategy = make(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not take these settings: {error}") from error
    missing = [method for method in ("begin", "fold", "finish") if not callable(getattr(strategy, method, None))]
    if missing:
        raise ValueError(f"{name} is no strategy: it has no {', '.join(missing)}()")
    return strategy


def _find(name: str, folder: Path) -> Callable[..., Strategy]:
    module_name, _, attribute = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name}: {error}; it is searched in {folder} and among installed packages") from error
    except Exception as error:
        raise ValueError(f"{name}: module {module_name} raises {type(error).__name__}: {error}") from error
    found: Callable[..., Strategy] | None = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"{name}: module {module_name} has no class {attribute}")
    return found
