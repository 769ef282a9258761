# SPDX-License-Identifier: Apache-2.0
"""The store on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmote.layout import Layout, Tensor
from fedmote.store import Store, StoreError

LAYOUT = Layout((Tensor("w", (8,)),))


def test_commits_survive(tmp_path: Path) -> None:
    """What was committed is there after the file is opened again; old models go."""
    path = tmp_path / "s.sqlite"
    store = Store(path, LAYOUT, np.zeros(8, np.float32), keep=3)
    for number in range(1, 6):
        assert store.commit(number, np.full(8, number, np.float32), {"round": number}) == number + 1
    store.close()
    store = Store(path, LAYOUT, np.zeros(8, np.float32), keep=3)
    version, number, model = store.latest()
    assert (version, number) == (6, 5) and np.array_equal(model, np.full(8, 5, np.float32))
    assert store.version_of(4) == 5 and store.version_of(6) is None
    assert [r["round"] for r in store.rounds()] == [1, 2, 3, 4, 5]
    store.close()


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    """A round committed twice fails as a whole."""
    store = Store(tmp_path / "s.sqlite", LAYOUT, np.zeros(8, np.float32))
    store.commit(1, np.ones(8, np.float32), {})
    with pytest.raises(Exception, match="UNIQUE"):
        store.commit(1, np.full(8, 9, np.float32), {})
    assert store.latest()[0] == 2
    store.commit(2, np.ones(8, np.float32), {})
    store.close()


def test_damage_is_told(tmp_path: Path) -> None:
    """No database, another layout, a newer format, a flipped byte."""
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"this is no database, but long enough to be looked at" * 40)
    with pytest.raises(StoreError, match="not a database"):
        Store(path, LAYOUT, np.zeros(8, np.float32))
    path.unlink()
    store = Store(path, LAYOUT, np.zeros(8, np.float32))
    with pytest.raises(StoreError, match="another layout"):
        Store(path, Layout((Tensor("v", (8,)),)), np.zeros(8, np.float32))
    store._db.execute("UPDATE model SET elements = CAST(zeroblob(31) || x'01' AS BLOB)")
    with pytest.raises(StoreError, match="checksum"):
        store.latest()
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="newer"):
        Store(path, LAYOUT, np.zeros(8, np.float32))
