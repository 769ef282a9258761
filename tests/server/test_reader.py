# SPDX-License-Identifier: Apache-2.0
"""The reader of TOML files."""

from __future__ import annotations

from pathlib import Path

from fedmote.config.reader import TomlReader


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors of Windows put one in front."""
    path = tmp_path / "federation.toml"
    path.write_bytes(b"\xef\xbb\xbf[model]\n")
    assert TomlReader(path, {}, ()).tables == {"model": {}}
