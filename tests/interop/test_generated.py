# SPDX-License-Identifier: Apache-2.0
"""The committed codecs equal the output of the generator for the schema, with the real flatc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import flatc_judge as judge
import generate_codec
import pytest


def changed(old: str, new: str, folder: Path) -> list[str]:
    """Return the complaint of the check if the schema had `new` instead of `old`."""
    text = judge.SCHEMA.read_text()
    assert text.count(old) == 1
    copy = folder / judge.SCHEMA.name
    copy.write_text(text.replace(old, new))
    made = folder / "made"
    made.mkdir()
    return sorted(
        kept.name for fresh, kept in generate_codec.generate(copy, made).items() if not generate_codec.same(fresh, kept)
    )


def test_the_committed_codecs_are_what_the_schema_gives() -> None:
    tool = judge.ROOT / "csdk" / "tools" / "generate_codec.py"
    result = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_unchanged_copy_of_the_schema_gives_no_difference(tmp_path: Path) -> None:
    assert changed("root_type Message;", "root_type Message;\n", tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("remaining_ms: uint32;", "remaining_ms: uint32;\n  later: uint16;"),
        ("Evaluation, Answer\n}\n", "Evaluation, Answer, Later\n}\n\ntable Later { round: uint32; }\n"),
    ],
    ids=["a field more", "a body more"],
)
def test_a_changed_schema_gives_a_difference_in_both_languages(old: str, new: str, tmp_path: Path) -> None:
    files = changed(old, new, tmp_path)
    assert "fm_wire.h" in files
    assert "wire" in files


def test_a_changed_default_gives_a_difference_in_both_languages(tmp_path: Path) -> None:
    files = changed("batch_size: uint16 = 32;", "batch_size: uint16 = 33;", tmp_path)
    assert "fm_wire.h" not in files  # C's types have no defaults; its tables have them
    assert len(files) >= 2
    assert "wire" in files


def test_files_missing_or_too_many_are_a_difference(tmp_path: Path) -> None:
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        folder.mkdir()
        (folder / "Hello.py").write_text("1\n")
    assert generate_codec.same(made, kept)
    (kept / "Goodbye.py").write_text("1\n")
    assert not generate_codec.same(made, kept)
    assert not generate_codec.same(made, tmp_path / "nowhere")
