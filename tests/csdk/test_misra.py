# SPDX-License-Identifier: Apache-2.0
"""csdk/tools/misra.py finds what breaks a rule, and takes MISRA.md at its word but no further."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "csdk" / "tools"))

import misra

SOURCE = """
int first(void *p);
int second(void *p);
int first(void *p) { int *q = (int *)p; /* MISRA D7 */
  return *q; }
int second(void *p) { int *q = (int *)p;
  return *q; }
"""
TABLE = "| number | rule | where | reason |\n|---|---|---|---|\n| D7 | 11.5 | {} | why |\n"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[misra.Finding]:
    source = tmp_path_factory.mktemp("misra") / "casts.c"
    source.write_text(SOURCE)
    cppcheck = str(Path(sys.executable).parent / "cppcheck")
    return [f for f in misra.findings(cppcheck, [source]) if f.rule == "11.5"]


def test_a_violation_is_found_where_it_is(found: list[misra.Finding]) -> None:
    assert [f.line for f in found] == [4, 6]
    assert [c.split(": ")[1] for c in misra.complaints(found, [])] == ["MISRA 11.5", "MISRA 11.5"]


@pytest.mark.parametrize(("where", "left"), [("project-wide", 0), ("casts.c", 0), ("marked", 1), ("other.c", 2)])
def test_a_row_excuses_what_it_says(found: list[misra.Finding], where: str, left: int) -> None:
    wrong = misra.complaints(found, misra.deviations(TABLE.format(where)))
    assert len([w for w in wrong if w.endswith("MISRA 11.5")]) == left
    assert any("D7" in w and "excuses nothing" in w for w in wrong) == (left == 2)


def test_the_row_has_to_have_a_reason() -> None:
    assert misra.deviations(TABLE.format("marked")) == [misra.Deviation("D7", "11.5", "marked")]
    assert misra.deviations(TABLE.format("marked").replace("why", "")) == []
