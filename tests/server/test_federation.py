# SPDX-License-Identifier: Apache-2.0
"""Whole federations: the real server, a real mosquitto and the real C client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def run(tmp_path: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `fedmote demo` as a user would."""
    environment = os.environ if path is None else os.environ | {"PATH": path}
    return subprocess.run(
        [str(Path(sys.executable).parent / "fedmote"), "demo", "--out", str(tmp_path), *arguments],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip


def demo(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run `fedmote demo` and return what --json wrote."""
    report = tmp_path / "out.json"
    result = run(tmp_path, "--json", str(report), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    out: dict[str, Any] = json.loads(report.read_text())
    return out


def test_a_fleet_with_faults_learns(tmp_path: Path) -> None:
    """A fleet learns although links break and slow devices send partial updates. All updates count and transfers
    resume.
    """
    out = demo(tmp_path, "--seed", "3", "--rounds", "8", "--local-epochs", "5")
    rounds = out["rounds"]
    assert isinstance(rounds, list) and len(rounds) == 8
    assert all(r["reported"] <= r["selected"] == 40 for r in rounds)
    assert sum(r["reported"] for r in rounds) >= 0.9 * 8 * 40
    assert sum(r["partial"] for r in rounds) > 0 and sum(r["dropped"] for r in rounds) > 0
    assert out["chunks_resumed"] > 0
    assert out["accuracy"] > 0.85 > out["alone_accuracy"]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    """The same seed gives the same bits: two runs, one device at a time, with broken links and partial updates."""
    models = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        out = demo(folder, "--seed", "5", "--rounds", "2", "--local-epochs", "2", "--devices", "8", "--one-at-a-time")
        assert sum(r["partial"] for r in out["rounds"]) > 0
        with np.load(folder / "model.npz") as file:
            models.append(np.concatenate([file[k].ravel() for k in file.files]))
    assert models[0].tobytes() == models[1].tobytes()


def test_no_broker_there(tmp_path: Path) -> None:
    """Without a broker, the error says what failed and where."""
    result = run(tmp_path, "--broker", "mqtt://127.0.0.1:1")
    assert result.returncode == 1 and "no MQTT broker at 127.0.0.1:1" in result.stderr
