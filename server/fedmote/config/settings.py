# SPDX-License-Identifier: Apache-2.0
"""federation.toml to typed settings, with errors that say where and what."""

from __future__ import annotations

import difflib
import math
import re
import ssl
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import ConfigError
from fedmote.fleet.limits import Limits
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.learning.strategies.registry import STRATEGIES
from fedmote.links.serial import Port
from fedmote.links.url import BrokerUrl
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy, Training
from fedmote.server.federation import Federation
from fedmote.tasks.base import TaskLimits

T = TypeVar("T")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 65535), "batch_size": (1, 65535), "learning_rate": (0, 1e6), "prox_mu": (0, 1e6),
    "max_steps": (0, 2**32 - 1), "select": (0, 1e9), "devices": (1, math.inf), "goal": (0, 1),
    "resume_s": (0, 4e6), "soft_deadline_s": (0, 4e6), "hard_deadline_s": (0, 4e6), "min_reports": (1, math.inf),
    "chunk_elements": (16, 16384), "slots": (1, math.inf), "slot_silence_s": (0, 4e6), "seed": (0, 2**32 - 1),
    "max_examples": (1, 2**32 - 1), "retry_ms": (1, 2**32 - 1), "buffer": (0, math.inf), "max_staleness": (0, 1000),
    "staleness_exponent": (0, 10), "min_deadline_s": (0.1, 4e6), "tiers": (1, 10), "min_battery": (0, 100),
    "min_free_memory_kib": (0, 2**32 - 1), "arrivals_per_s": (1, 1e6), "meet_s": (1, 86400),
    "ineligible_s": (0, 86400), "min_cohort": (2, math.inf), "max_per_device": (1, 2**32 - 1),
    "answer_s": (1, 4e6), "wait_s": (1, 4e6),
}  # fmt: skip

_ENCODINGS = ("float32", "int8")
RECORDS: dict[str, type[Any]] = {
    "training": Training, "round": Policy, "selection": Selection, "pace": Pace, "limits": Limits,
    "tasks": TaskLimits,
}  # fmt: skip
"""Sections that are a dataclass each."""

OTHERS: dict[str, list[str]] = {
    "federation": ["name", "data"], "model": ["tensors", "widths", "initial"], "mqtt": ["url", "ca_file"],
    "serial": ["ports", "baud"], "strategy": ["name"],
}  # fmt: skip
"""The keys of the other sections."""

_DEVICE = r"(?!\.+$)[A-Za-z0-9_.-]{1,63}"


@dataclass(frozen=True)
class Settings:
    """One federation.toml."""

    name: str
    layout: Layout
    broker: str | None
    database: Path
    training: Training
    policy: Policy
    limits: Limits
    initial: NDArray[np.float32] | None
    ports: tuple[Port, ...] = ()
    ca_file: Path | None = None
    strategy: str = "fedavg"
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)
    tasks: TaskLimits = field(default_factory=TaskLimits)

    def federation(self, broker: str | None) -> Federation:
        """Return what the server runs."""
        return Federation(
            self.name, self.layout, broker, self.training, self.policy, self.limits, self.database, self.initial,
            self.ports, self.ca_file, self.selection, self.pace, self.tasks,
        )  # fmt: skip


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.tables: dict[str, Any] = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def fail(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key}: {what}")

    def known(self, section: str, table: dict[str, Any], names: list[str]) -> None:
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
                raise self.fail(f"{section}.{key}" if section else key, f"unknown; {hint}")

    def section(self, name: str, names: list[str]) -> dict[str, Any]:
        table = self.tables.get(name, {})
        if not isinstance(table, dict):
            raise self.fail(name, f"must be a section, [{name}]")
        self.known(name, table, names)
        return table

    def record(self, name: str, kind: type[T]) -> T:
        """Read a section into a dataclass of numbers, flags, names and lists of strings."""
        hints = get_type_hints(kind)
        table = self.section(name, [f.name for f in fields(kind)])  # type: ignore[arg-type]
        values = {key: self._value(f"{name}.{key}", key, value, hints[key]) for key, value in table.items()}
        return kind(**values)

    def _value(self, where: str, key: str, value: Any, kind: Any) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind in (int, float, bool):
            if type(value) is not kind:
                raise self.fail(
                    where, f"{value!r} must be {'true or false' if kind is bool else f'of type {kind.__name__}'}"
                )
            low, high = _RANGES.get(key, (-math.inf, math.inf))
            if kind is not bool and not low <= value <= high:
                raise self.fail(where, f"{value!r} must be from {low:g} to {high:g}")
            return value
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            if value not in choices:
                raise self.fail(where, f"{value!r} must be one of {', '.join(choices)}")
            return value
        if not isinstance(value, list) or not value or not all(one in _ENCODINGS for one in value):
            raise self.fail(where, f"{value!r} must be a list of {', '.join(_ENCODINGS)}")
        return tuple(value)

    def text(self, section: str, key: str, pattern: str, what: str) -> str | None:
        value = self.tables.get(section, {}).get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.fail(f"{section}.{key}", f"{value!r} must be {what}")
        return value


def load(path: Path) -> Settings:
    """Read a federation.toml; ConfigError says what is wrong with it."""
    reader = _Reader(path)
    reader.known("", reader.tables, [*OTHERS, *RECORDS, "simulation"])
    for section, keys in OTHERS.items():
        reader.section(section, keys)
    ports = tuple(_ports(reader))
    name = reader.text("federation", "name", r"(?!\.+$)[A-Za-z0-9_.-]{1,32}", "1 to 32 letters, digits, _, . or -")
    if name is None:
        raise reader.fail("federation.name", "is missing; give the federation a name")
    broker = _broker(reader)
    folder = path.parent / (reader.text("federation", "data", r".+", "a folder") or ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise reader.fail(
            "federation.data", f"{folder} cannot be made: {error.strerror}; name another folder"
        ) from error
    layout = _layout(reader)
    training = reader.record("training", Training)
    strategy = reader.text("strategy", "name", "|".join(STRATEGIES), f"one of {', '.join(STRATEGIES)}") or "fedavg"
    if strategy == "fednova" and training.prox_mu:
        raise reader.fail("training.prox_mu", "must be 0 with fednova, which counts plain steps of SGD")
    policy, selection = reader.record("round", Policy), reader.record("selection", Selection)
    _check_together(reader, policy, selection)
    return Settings(
        name=name,
        layout=layout,
        broker=broker,
        database=folder / f"{name}.sqlite",
        training=training,
        policy=policy,
        limits=reader.record("limits", Limits),
        initial=_initial(reader, layout),
        ports=ports,
        ca_file=_ca_file(reader, broker),
        strategy=strategy,
        selection=selection,
        pace=reader.record("pace", Pace),
        tasks=reader.record("tasks", TaskLimits),
    )


def _check_together(reader: _Reader, policy: Policy, selection: Selection) -> None:
    """Refuse settings that are good by themselves and not together."""
    if policy.buffer and policy.one_at_a_time:
        raise reader.fail("round.one_at_a_time", "is for synchronous rounds; take it out, or buffer")
    if policy.buffer and selection.tiers > 1:
        raise reader.fail("selection.tiers", "is for synchronous rounds; take it out, or round.buffer")
    if policy.adaptive and policy.one_at_a_time:
        raise reader.fail("round.adaptive", "is for devices that work side by side; take it out, or one_at_a_time")
    if policy.hard_deadline_s < policy.soft_deadline_s:
        what = f"{policy.hard_deadline_s:g} must be at least soft_deadline_s, {policy.soft_deadline_s:g}"
        raise reader.fail("round.hard_deadline_s", what)
    if policy.adaptive and policy.soft_deadline_s < policy.min_deadline_s:
        what = f"{policy.min_deadline_s:g} must be at most soft_deadline_s, {policy.soft_deadline_s:g}"
        raise reader.fail("round.min_deadline_s", what)


def _broker(reader: _Reader) -> str | None:
    """Read the broker's URL. One that anybody may use must be out of reach of everybody else (SECURITY.md)."""
    url = reader.text("mqtt", "url", r"(?s).*", "a URL")
    if url is None:
        return None
    try:
        broker = BrokerUrl.parse(url)
    except ValueError as error:
        raise reader.fail("mqtt.url", str(error)) from None
    if broker.user is None and not broker.loopback:
        with_user = str(broker).replace("//", "//user:password@")
        raise reader.fail("mqtt.url", f"names no user; a broker on {broker.host} must know who speaks: {with_user}")
    return url


def _ca_file(reader: _Reader, broker: str | None) -> Path | None:
    """Read who signed the broker's certificate: a path relative to the federation.toml."""
    name = reader.text("mqtt", "ca_file", r".+", "the path of a PEM file")
    if name is None:
        return None
    if broker is None or not broker.startswith("mqtts:"):
        raise reader.fail("mqtt.ca_file", "is for TLS; the url must be mqtts://...")
    path = reader.path.parent / name
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        what = f"{path}: {error}; it must be a PEM file with the certificate of the authority"
        raise reader.fail("mqtt.ca_file", what) from error
    return path


def _ports(reader: _Reader) -> list[Port]:
    """Read [serial]: ports, each a URL or { url, baud, device }, and the baud rate of those that name none."""
    section = reader.section("serial", OTHERS["serial"])
    listed = section.get("ports", [])
    if not isinstance(listed, list) or (section and not listed):
        raise reader.fail("serial.ports", 'is missing; list the ports: ["/dev/ttyUSB0", "socket://host:4000"]')
    out: list[Port] = []
    for i, entry in enumerate(listed):
        where = f"serial.ports[{i}]"
        table = {"url": entry} if isinstance(entry, str) else entry
        if not isinstance(table, dict) or not set(table) <= {"url", "baud", "device"} or not table.get("url"):
            raise reader.fail(where, "must be a port's name or URL, or { url = ..., baud = ..., device = ... }")
        url, baud, device = table["url"], table.get("baud", section.get("baud", 115200)), table.get("device")
        if not isinstance(url, str) or url in [p.url for p in out]:
            raise reader.fail(where, f"url {url!r} must be a string and unlike the others")
        if type(baud) is not int or not 50 <= baud <= 20_000_000:
            raise reader.fail(where, f"baud {baud!r} must be an integer from 50 to 20000000")
        if device is not None and not (isinstance(device, str) and re.fullmatch(_DEVICE, device)):
            raise reader.fail(where, f"device {device!r} must be 1 to 63 letters, digits, _, . or -")
        out.append(Port(url, baud, device))
    return out


def _layout(reader: _Reader) -> Layout:
    """Read the tensors, and the widths of the sub-models that device classes hold."""
    tensors = tuple(_tensors(reader))
    widths = reader.tables["model"].get("widths", [1.0])
    if not isinstance(widths, list) or not all(type(share) in (int, float) and 0 < share <= 1 for share in widths):
        raise reader.fail("model.widths", f"{widths!r} must be a list of shares above 0, at most 1: [1.0, 0.5, 0.25]")
    layout = Layout(tensors, tuple(float(share) for share in widths))
    try:
        layout.classes()
    except ValueError as error:
        raise reader.fail("model.widths", str(error)) from None
    return layout


def _tensors(reader: _Reader) -> list[Tensor]:
    model = reader.section("model", OTHERS["model"])
    listed = model.get("tensors")
    if not isinstance(listed, list) or not listed:
        raise reader.fail("model.tensors", 'is missing; list the shared tensors: [{ name = "w", shape = [64, 10] }]')
    out: list[Tensor] = []
    for i, entry in enumerate(listed):
        where = f"model.tensors[{i}]"
        if not isinstance(entry, dict) or not {"name", "shape"} <= set(entry) <= {"name", "shape", "scale"}:
            raise reader.fail(where, "must be { name = ..., shape = [...] }, and scale = [...] for sub-models")
        label, shape = entry["name"], entry["shape"]
        if not isinstance(label, str) or not 1 <= len(label.encode()) <= 31 or label in [t.name for t in out]:
            raise reader.fail(where, f"name {label!r} must be 1 to 31 bytes and unlike the others")
        if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
            raise reader.fail(where, f"shape {shape!r} must be a list of positive integers")
        scale = entry.get("scale")
        if scale is not None and (
            not isinstance(scale, list) or len(scale) != len(shape) or not all(type(one) is bool for one in scale)
        ):
            raise reader.fail(where, f"scale {scale!r} must be a list of true or false, one for each axis of shape")
        out.append(Tensor(label, tuple(shape), None if scale is None else tuple(scale)))
    return out


def _initial(reader: _Reader, layout: Layout) -> NDArray[np.float32] | None:
    name = reader.text("model", "initial", r".+", "the path of an .npz file")
    if name is None:
        return None
    try:
        with np.load(reader.path.parent / name) as file:
            parts = [np.asarray(file[t.name], np.float32) for t in layout.tensors]
    except (OSError, KeyError, ValueError) as error:
        raise reader.fail("model.initial", f"{name}: {error}") from error
    for tensor, part in zip(layout.tensors, parts, strict=True):
        if part.shape != tensor.shape:
            raise reader.fail("model.initial", f"{name}: {tensor.name} is {part.shape}, expected {tensor.shape}")
    return np.concatenate([p.ravel() for p in parts])
