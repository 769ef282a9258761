# SPDX-License-Identifier: Apache-2.0
"""federation.toml to typed settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedmote.config import link_sections, model
from fedmote.config.reader import Range, TomlReader
from fedmote.fleet.limits import Limits
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.learning.guard import Bounds
from fedmote.learning.strategies.registry import make_strategy
from fedmote.learning.strategy import Strategy
from fedmote.model.encodings import ENCODINGS
from fedmote.rounds.policy import Policy, Training
from fedmote.server.federation import Federation
from fedmote.tasks.base import TaskLimits

RANGES: dict[str, Range] = {
    "epochs": (1, 65535), "batch_size": (1, 65535), "learning_rate": (0, 1e6), "prox_mu": (0, 1e6),
    "max_steps": (0, 2**32 - 1), "select": (0, 1e9), "devices": (1, math.inf), "goal": (0, 1),
    "resume_s": (0, 4e6), "soft_deadline_s": (0, 4e6), "hard_deadline_s": (0, 4e6), "min_reports": (1, math.inf),
    "chunk_elements": (16, 16384), "slots": (1, math.inf), "slot_silence_s": (0, 4e6), "seed": (0, 2**32 - 1),
    "max_examples": (1, 2**32 - 1), "retry_ms": (1, 86_400_000), "buffer": (0, math.inf), "max_staleness": (0, 1000),
    "staleness_exponent": (0, 10), "min_deadline_s": (0.1, 4e6), "tiers": (1, 10), "min_battery": (0, 100),
    "min_free_memory_kib": (0, 2**32 - 1), "arrivals_per_s": (1, 1e6), "meet_s": (1, 86400),
    "ineligible_s": (0, 86400), "min_cohort": (2, math.inf), "max_per_device": (1, 2**32 - 1),
    "answer_s": (1, 4e6), "wait_s": (1, 4e6), "change_multiple": (0, 1e9), "max_change": (1e-9, 1e15),
    "examples_multiple": (0, 1e9), "pause_s": (0, 86400), "min_interval_s": (0, 4e6),
}  # fmt: skip
"""The range of each number, by key."""

RECORDS: dict[str, type[Any]] = {
    "training": Training, "round": Policy, "selection": Selection, "pace": Pace, "limits": Limits,
    "tasks": TaskLimits, "bounds": Bounds,
}  # fmt: skip
"""Sections that are a dataclass each."""

OTHERS: dict[str, Sequence[str]] = {
    "federation": ("name", "data"), "model": model.KEYS, **link_sections.SECTIONS,
}  # fmt: skip
"""The keys of the other sections."""

SECTIONS = (*OTHERS, *RECORDS, "strategy")
"""All sections. The keys of [strategy] besides its name are the strategy's own."""


@dataclass(frozen=True)
class Settings(Federation):
    """One federation.toml: a federation whose database is a file, and the name of its strategy.

    strategy, strategy_options, folder: see fedmote.learning.strategies.registry.make_strategy().
    """

    database: Path = Path(":memory:")
    strategy: str = "fedavg"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def make_strategy(self) -> Strategy:
        """Make the strategy. ValueError: what is wrong with it."""
        return make_strategy(self.strategy, self.strategy_options, self.folder)

    def federation(self, broker: str | None) -> Federation:
        """Return what the server runs, with that broker's URL, for example a private broker's."""
        return replace(self, broker=broker)


def load(path: Path) -> Settings:
    """Read a federation.toml; ConfigError says what is wrong with it."""
    reader = TomlReader(path, RANGES, tuple(ENCODINGS))
    reader.check_keys("", reader.tables, [*SECTIONS, "simulation"])
    for section, keys in OTHERS.items():
        reader.section(section, keys)
    links = link_sections.read_links(reader)
    name = reader.text("federation", "name", r"(?!\.+$)[A-Za-z0-9_.-]{1,32}", "1 to 32 letters, digits, _, . or -")
    if name is None:
        raise reader.error("federation.name", "is missing; give the federation a name")
    broker = link_sections.read_broker(reader)
    folder = _data_folder(reader)
    layout = model.read_layout(reader)
    training, (strategy, strategy_options) = reader.record("training", Training), _strategy(reader)
    policy, selection = reader.record("round", Policy), reader.record("selection", Selection)
    if strategy == "fednova" and training.prox_mu:
        raise reader.error("training.prox_mu", "must be 0 with fednova, which counts plain steps of SGD")
    _check_together(reader, policy, selection)
    return Settings(
        name=name,
        layout=layout,
        broker=broker,
        database=folder / f"{name}.sqlite",
        training=training,
        policy=policy,
        limits=reader.record("limits", Limits),
        initial=model.read_initial(reader, layout),
        ca_file=link_sections.read_ca_file(reader, broker),
        links=links,
        strategy=strategy,
        strategy_options=strategy_options,
        folder=path.parent.absolute(),
        selection=selection,
        pace=reader.record("pace", Pace),
        tasks=reader.record("tasks", TaskLimits),
        bounds=reader.record("bounds", Bounds),
    )


def _data_folder(reader: TomlReader) -> Path:
    """Make the folder of the database, relative to the federation.toml."""
    folder = reader.path.parent / (reader.text("federation", "data", r".+", "a folder") or ".")
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"{folder} cannot be made: {error.strerror}; name another folder"
        raise reader.error("federation.data", what) from error
    return folder


def _strategy(reader: TomlReader) -> tuple[str, dict[str, Any]]:
    """Read the strategy's name and its settings, and try them."""
    name = reader.text("strategy", "name", r".+", "a name") or "fedavg"
    options = {key: value for key, value in reader.tables.get("strategy", {}).items() if key != "name"}
    try:
        make_strategy(name, options, reader.path.parent.absolute())
    except ValueError as error:
        raise reader.error("strategy.name" if not options else "strategy", str(error)) from error
    return name, options


def _check_together(reader: TomlReader, policy: Policy, selection: Selection) -> None:
    """Refuse settings that do not work together."""
    buffered, soft_s = policy.buffer > 0, policy.soft_deadline_s
    rules = (
        (buffered and policy.one_at_a_time, "round.one_at_a_time", "is for synchronous rounds; take it out, or buffer"),
        (
            buffered and policy.min_interval_s > 0, "round.min_interval_s",
            "is for synchronous rounds; take it out, or buffer",
        ),
        (
            buffered and selection.tiers > 1, "selection.tiers",
            "is for synchronous rounds; take it out, or round.buffer",
        ),
        (
            policy.adaptive and policy.one_at_a_time, "round.adaptive",
            "is for devices that work side by side; take it out, or one_at_a_time",
        ),
        (
            policy.hard_deadline_s < soft_s, "round.hard_deadline_s",
            f"{policy.hard_deadline_s:g} must be at least soft_deadline_s, {soft_s:g}",
        ),
        (
            policy.adaptive and soft_s < policy.min_deadline_s, "round.min_deadline_s",
            f"{policy.min_deadline_s:g} must be at most soft_deadline_s, {soft_s:g}",
        ),
    )  # fmt: skip
    for broken, key, what in rules:
        if broken:
            raise reader.error(key, what)
