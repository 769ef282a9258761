# SPDX-License-Identifier: Apache-2.0
"""docs/settings.md lists every setting of the program."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from fedmote.config.settings import OTHERS, RANGES, RECORDS, SECTIONS
from fedmote.model.encodings import ENCODINGS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
TYPES = {int: "integer", float: "number", bool: "true or false"}


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table, without its header."""
    found = re.search(rf"^## \[{section}\]$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{PAGE} has no section [{section}]"
    table = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def described(key: str, kind: Any, default: Any) -> list[str]:
    """Return how the page has to describe a field: key, type, range, default."""
    if kind is bool:
        return [f"`{key}`", "true or false", "", str(default).lower()]
    if kind in TYPES:
        low, high = RANGES[key]
        bounds = f"at least {low:g}" if high == math.inf else f"{low:.10g} to {high:.10g}"
        return [f"`{key}`", TYPES[kind], bounds, str(default)]
    if get_args(kind)[0] is str:
        return [f"`{key}`", "list", ", ".join(ENCODINGS), ", ".join(default)]
    return [f"`{key}`", "text", ", ".join(get_args(kind)), default]


@pytest.mark.parametrize("section", RECORDS)
def test_dataclasses(section: str) -> None:
    """Each field is listed in order, with its type, range and default. A number without a range is a KeyError."""
    kind = RECORDS[section]
    hints = get_type_hints(kind)
    table = rows(section)
    assert [row[:4] for row in table] == [described(f.name, hints[f.name], f.default) for f in fields(kind)]
    assert all(len(row) == 5 and row[4] for row in table)


@pytest.mark.parametrize("section", OTHERS)
def test_other_sections(section: str) -> None:
    """Each key is listed, in order."""
    assert [row[0] for row in rows(section)] == [f"`{key}`" for key in OTHERS[section]]


def test_no_section_is_made_up() -> None:
    """The page lists the sections of the program and no others."""
    named = re.findall(r"^## \[(.*)\]$", PAGE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(SECTIONS)
