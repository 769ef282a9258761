# SPDX-License-Identifier: Apache-2.0
"""[simulation] of a federation.toml, with errors that say where, what and what to do."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmote.errors import ConfigError
from fedmote.simulation.battery import BatteryModel
from fedmote.simulation.network import LinkModel
from fedmote.simulation.population import PRESET, DeviceClass

Range = tuple[type, float, float]

_ANY = (0.0, 1e9)
_LEAST = 1e-3
_FLEET: dict[str, Range] = {
    "devices": (int, 1, 100_000),
    "hours": (float, 0.01, 24 * 366),
    "seed": (int, 0, 2**32 - 1),
    "alpha": (float, _LEAST, 1e6),
    "least_examples": (int, 1, 100_000),
    "most_examples": (int, 1, 100_000),
    "start_h": (float, 0, 24),
}

_CLASS: dict[str, Range] = {
    "share": (float, _LEAST, 1e6),
    "steps_per_s": (float, _LEAST, 1e5),
    "spread": (float, 0, 0.95),
    "drift_ppm": (float, 0, 100_000),
    "retry_s": (float, 0.1, 3600),
    "metered": (bool, 0, 1),
}

_LINK: dict[str, Range] = {
    "up_bytes_s": (float, 1, 1e9),
    "down_bytes_s": (float, 1, 1e9),
    "latency_ms": (float, 0, 60_000),
    "loss": (float, 0, 0.9),
    "mean_up_s": (float, 1, 1e9),
    "mean_down_s": (float, *_ANY),
}

_BATTERY: dict[str, Range] = {
    "idle_h": (float, *_ANY),
    "train_h": (float, _LEAST, 1e9),
    "radio_mb": (float, _LEAST, 1e9),
    "charge_h": (float, _LEAST, 1e9),
    "plugged_h": (float, 0, 24),
    "unplugged_h": (float, 0, 24),
    "reserve": (float, 0, 1),
}


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What [simulation] says.

    alpha: of the Dirichlet distribution that a device's labels come from; small is one-sided. least_examples,
    most_examples: that a device has. start_h: time of the day at which the run starts.
    """

    devices: int = 1000
    hours: float = 24.0
    seed: int = 1
    alpha: float = 0.3
    least_examples: int = 20
    most_examples: int = 60
    start_h: float = 0.0
    classes: tuple[DeviceClass, ...] = PRESET


def load(path: Path) -> FleetSettings:
    """Read [simulation] and [[simulation.class]]; what is not there is the preset's."""
    try:
        table = tomllib.loads(path.read_text()).get("simulation", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: simulation: must be a section, [simulation]")
    listed = table.pop("class", None)
    settings = FleetSettings(**_values(path, "simulation", table, _FLEET))
    if settings.most_examples < settings.least_examples:
        raise ConfigError(f"{path}: simulation.most_examples: {settings.most_examples} is below least_examples, "
                          f"{settings.least_examples}; raise it")  # fmt: skip
    if listed is None:
        return settings
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise ConfigError(f"{path}: simulation.class: must be sections, each [[simulation.class]]")
    classes = tuple(_device_class(path, f"simulation.class[{i}]", entry) for i, entry in enumerate(listed))
    names = [c.name for c in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: simulation.class: two are named {twice!r}; give each a name of its own")
    return replace(settings, classes=classes)


def _device_class(path: Path, where: str, table: dict[str, Any]) -> DeviceClass:
    name = table.pop("name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: {where}.name: is missing; give the class a name")
    values = _values(path, where, table, _CLASS | _LINK | _BATTERY)

    def of(ranges: dict[str, Range]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key in ranges}

    return DeviceClass(name=name, link=LinkModel(**of(_LINK)), battery=BatteryModel(**of(_BATTERY)), **of(_CLASS))


def _values(path: Path, where: str, table: dict[str, Any], ranges: dict[str, Range]) -> dict[str, Any]:
    """Check each value's type and range."""
    out = {}
    for key, value in table.items():
        if key not in ranges:
            near = difflib.get_close_matches(key, ranges, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ranges)}"
            raise ConfigError(f"{path}: {where}.{key}: unknown; {hint}")
        kind, low, high = ranges[key]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, (int, float)) or type(value) is not kind:
            what = "true or false" if kind is bool else f"of type {kind.__name__}"
            raise ConfigError(f"{path}: {where}.{key}: {value!r} must be {what}")
        if not low <= value <= high or not math.isfinite(value):
            raise ConfigError(f"{path}: {where}.{key}: {value!r} must be from {low:g} to {high:g}")
        out[key] = value
    return out
