# SPDX-License-Identifier: Apache-2.0
"""Reads sections of a TOML file into typed values. Each error names the file, the key and the way out."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fedmote.errors import ConfigError

T = TypeVar("T")

Range = tuple[float, float]
"""The smallest and the largest value of a setting."""

ANY: Range = (-math.inf, math.inf)


class TomlReader:
    """One TOML file. tables: its content. ranges: of numbers, by key; choices: of lists of names."""

    def __init__(self, path: Path, ranges: Mapping[str, Range], choices: Sequence[str]) -> None:
        self.path, self.ranges, self.choices = path, ranges, choices
        try:
            self.tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def error(self, key: str, what: str) -> ConfigError:
        """Return the error that says what is wrong with a key."""
        return ConfigError(f"{self.path}: {key}: {what}")

    def check_keys(self, section: str, table: Mapping[str, object], known: Sequence[str]) -> None:
        """Refuse keys that are not known, and suggest the nearest one."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self.error(f"{section}.{key}" if section else key, f"unknown; {hint}")

    def section(self, name: str, keys: Sequence[str]) -> dict[str, Any]:
        """Return a section; {}: the file has none."""
        table = self.tables.get(name, {})
        if not isinstance(table, dict):
            raise self.error(name, f"must be a section, [{name}]")
        self.check_keys(name, table, keys)
        return table

    def text(self, section: str, key: str, pattern: str, what: str) -> str | None:
        """Return a text that matches a pattern, described by `what`; None: it is not given."""
        value = self.tables.get(section, {}).get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(f"{section}.{key}", f"{value!r} must be {what}")
        return value

    def record(self, name: str, kind: type[T]) -> T:
        """Read a section into a dataclass of numbers, flags, names and lists of names."""
        hints = get_type_hints(kind)
        table = self.section(name, [f.name for f in fields(kind)])  # type: ignore[arg-type]
        values = {key: self._value(f"{name}.{key}", key, value, hints[key]) for key, value in table.items()}
        return kind(**values)

    def number(self, where: str, value: object, kind: type, bounds: Range) -> int | float | bool:
        """Return a number or flag of the type `kind` and within its bounds; a whole number serves as a float."""
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not isinstance(value, int | float):
            what = "true or false" if kind is bool else f"of type {kind.__name__}"
            raise self.error(where, f"{value!r} must be {what}")
        low, high = bounds
        if kind is not bool and not low <= value <= high:
            raise self.error(where, f"{value!r} must be from {low:g} to {high:g}")
        return value

    def _value(self, where: str, key: str, value: object, kind: Any) -> object:
        if kind in (int, float, bool):
            return self.number(where, value, kind, self.ranges.get(key, ANY))
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise self.error(where, f"{value!r} must be one of {', '.join(get_args(kind))}")
            return value
        if not isinstance(value, list) or not value or not all(name in self.choices for name in value):
            raise self.error(where, f"{value!r} must be a list of {', '.join(self.choices)}")
        return tuple(value)
