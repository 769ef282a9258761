# SPDX-License-Identifier: Apache-2.0
"""[simulation] of a federation.toml."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmote.config.reader import TomlReader
from fedmote.simulation.battery import BatteryModel
from fedmote.simulation.network import LinkModel
from fedmote.simulation.population import PRESET, DeviceClass

Setting = tuple[type, float, float]
"""The type of a number or flag, its smallest and its largest value."""

_ANY = (0.0, 1e9)
_LEAST = 1e-3
_FLEET: dict[str, Setting] = {
    "devices": (int, 1, 100_000),
    "hours": (float, 0.01, 24 * 366),
    "seed": (int, 0, 2**32 - 1),
    "alpha": (float, _LEAST, 1e6),
    "least_examples": (int, 1, 100_000),
    "most_examples": (int, 1, 100_000),
    "start_h": (float, 0, 24),
}

_CLASS: dict[str, Setting] = {
    "share": (float, _LEAST, 1e6),
    "steps_per_s": (float, _LEAST, 1e5),
    "spread": (float, 0, 0.95),
    "drift_ppm": (float, 0, 100_000),
    "retry_s": (float, 0.1, 3600),
    "metered": (bool, 0, 1),
}

_LINK: dict[str, Setting] = {
    "up_bytes_s": (float, 1, 1e9),
    "down_bytes_s": (float, 1, 1e9),
    "latency_ms": (float, 0, 60_000),
    "loss": (float, 0, 0.9),
    "mean_up_s": (float, 1, 1e9),
    "mean_down_s": (float, *_ANY),
}

_BATTERY: dict[str, Setting] = {
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
    """The settings of [simulation].

    alpha: of the Dirichlet distribution of a device's labels; the smaller, the fewer labels dominate. least_examples,
    most_examples: number of examples that a device holds. start_h: time of day at which the run starts.
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
    """Read [simulation] and [[simulation.class]]; a missing setting is the preset's."""
    reader = TomlReader(path, {}, ())
    table = reader.tables.get("simulation", {})
    if not isinstance(table, dict):
        raise reader.error("simulation", "must be a section, [simulation]")
    listed = table.pop("class", None)
    settings = FleetSettings(**_values(reader, "simulation", table, _FLEET))
    if settings.most_examples < settings.least_examples:
        what = f"{settings.most_examples} is below least_examples, {settings.least_examples}; raise it"
        raise reader.error("simulation.most_examples", what)
    return settings if listed is None else replace(settings, classes=_device_classes(reader, listed))


def _device_classes(reader: TomlReader, listed: object) -> tuple[DeviceClass, ...]:
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise reader.error("simulation.class", "must be sections, each [[simulation.class]]")
    classes = tuple(_device_class(reader, f"simulation.class[{i}]", entry) for i, entry in enumerate(listed))
    names = [c.name for c in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise reader.error("simulation.class", f"two are named {twice!r}; give each a name of its own")
    return classes


def _device_class(reader: TomlReader, where: str, table: dict[str, Any]) -> DeviceClass:
    name = table.pop("name", None)
    if not isinstance(name, str) or not name:
        raise reader.error(f"{where}.name", "is missing; give the class a name")
    values = _values(reader, where, table, _CLASS | _LINK | _BATTERY)

    def those_of(settings: dict[str, Setting]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key in settings}

    link, battery = LinkModel(**those_of(_LINK)), BatteryModel(**those_of(_BATTERY))
    return DeviceClass(name=name, link=link, battery=battery, **those_of(_CLASS))


def _values(reader: TomlReader, where: str, table: dict[str, Any], settings: dict[str, Setting]) -> dict[str, Any]:
    """Return the values of a table, each of the type and within the range of its setting."""
    reader.check_keys(where, table, list(settings))
    out = {}
    for key, value in table.items():
        kind, low, high = settings[key]
        out[key] = reader.number(f"{where}.{key}", value, kind, (low, high))
        if not math.isfinite(out[key]):
            raise reader.error(f"{where}.{key}", f"{value!r} must be from {low:g} to {high:g}")
    return out
