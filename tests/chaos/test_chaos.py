# SPDX-License-Identifier: Apache-2.0
"""The chaos run in short: all that dies in thirty minutes dies in less than one, on a network that is less bad."""

from __future__ import annotations

from pathlib import Path

from chaos import Plan, run


def test_three_quarters_of_a_minute(tmp_path: Path) -> None:
    """Rounds keep committing, and the ledger is exact."""
    plan = Plan(
        seconds=45.0, devices=12, loss=0.05, delay=0.02, jitter=0.02, broker_every_s=12.0, server_restarts=3,
        calm_s=10.0, power_every_s=10.0, seed=3,
    )  # fmt: skip
    report = run(plan, tmp_path)
    assert report.verdict.errors == []
    assert report.broker_restarts == 3 and report.server_restarts == 3
    assert report.power_cuts > 0 and report.packets_lost > 0
    assert report.verdict.rounds >= 3 and report.verdict.folded >= 3 * 6
    assert {name for _, name, _ in report.memory} == {"broker", "server", "devices"}
