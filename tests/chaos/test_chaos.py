# SPDX-License-Identifier: Apache-2.0
"""A short chaos run: the kills of thirty minutes happen in half a minute, on a network ten times as fast."""

from __future__ import annotations

from pathlib import Path

from chaos import Plan, run


def test_half_a_minute(tmp_path: Path) -> None:
    """Rounds are committed throughout, and the ledger is exact."""
    plan = Plan(
        seconds=24.0, devices=12, delay=0.05, jitter=0.05, broker_every_s=8.5, server_restarts=2, calm_s=6.0,
        power_every_s=8.0, patience_s=5.0, rounds=2, seed=3,
    )  # fmt: skip
    report = run(plan, tmp_path)
    verdict = report.verdict
    assert verdict.errors == []
    assert (report.broker_restarts, report.server_restarts) == (2, 2)
    assert report.power_cuts > 0 and report.packets_lost > 0.25 * report.packets
    assert verdict.rounds >= 2 and verdict.folded >= 2 * verdict.rounds and verdict.confirmed > 0
    assert {sample.name for sample in report.memory} == {"broker", "server", "devices"}
