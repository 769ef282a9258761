# SPDX-License-Identifier: Apache-2.0
"""Messages written by any released version are still read, with the same meaning, on both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import flatc_judge as judge
import make_golden
import pytest

VERSIONS = sorted(path for path in make_golden.GOLDEN.iterdir() if path.is_dir())


def told(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "fields.json").read_text())
    return said


def plain(fields: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the version knew, in the form of fields.json, with floats as bits."""
    return judge.bits({name: make_golden.plain(fields[name]) for name in known})


def test_the_newest_golden_messages_have_every_body() -> None:
    folder = VERSIONS[-1]  # "unreleased" sorts behind the versions
    assert {said["body"] for said in told(folder).values()} == set(judge.bodies())


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_golden_messages_are_read(folder: Path) -> None:
    said = told(folder)
    assert {path.name for path in folder.glob("*.fmo")} == set(said)
    assert len(said) >= 17
    for name, entry in said.items():
        message = (folder / name).read_bytes()
        for read in (judge.read_c(message), judge.read_python(message)):
            assert read is not None, name
            assert read[0] == entry["body"], name
            assert plain(read[1], entry["fields"]) == judge.bits(entry["fields"]), name
            later = {k: v for k, v in judge.bits(read[1]).items() if k not in entry["fields"]}
            assert later.items() <= judge.bits(judge.defaults()[entry["body"]]).items(), name


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_flatc_reads_golden_messages(folder: Path) -> None:
    said = told(folder)
    read = judge.read([(folder / name).read_bytes() for name in said])
    for (name, entry), (body, fields) in zip(said.items(), read, strict=True):
        assert body == entry["body"], name
        assert plain(judge.defaults()[body] | fields, entry["fields"]) == judge.bits(entry["fields"]), name


def test_nothing_is_overwritten() -> None:
    folder = VERSIONS[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = subprocess.run(
        [sys.executable, make_golden.__file__, folder.name], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert "never changed" in result.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
