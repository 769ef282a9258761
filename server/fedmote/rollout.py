# SPDX-License-Identifier: Apache-2.0
"""Roll-out in stages: a committed model reaches more and more devices for as long as it is no worse on their data."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fedmote.ask import ask
from fedmote.config import ConfigError, load
from fedmote.tasks import Evaluate, Release, Request, Result, RollBack, TaskError

STAGES = (0.05, 0.25, 1.0)


def roll_out(
    do: Callable[[Request], Result], version: int, former: int, stages: Sequence[float], tolerance: float,
    say: Callable[[str], None] = lambda line: None,
) -> bool:  # fmt: skip
    """Bring a model to the devices, a share of them after the other; return whether it reached all of them.

    Each stage asks the same devices twice: what the former model loses on their data, then what the new one does. When
    that is more by above `tolerance` (a share of the former loss's size), they get the former one again, and it ends.
    do: has the server do a task. A larger stage holds the smaller ones. Devices that come or go between the two
    evaluations make them differ; then it says so. TaskError: as `do` raises it.
    """
    for share in stages:
        pairs = ((former, version), (version, former))
        before, after = (do(Evaluate(of, share=share, order=version, against=other)) for of, other in pairs)
        was, loss = before["loss"]["mean"], after["loss"]["mean"]
        right = [evaluation["accuracy"]["mean"] for evaluation in (before, after)]
        say(f"{share:.0%} of the fleet, {after['devices']} devices: model {former} has loss {was:.4f}, accuracy "
            f"{right[0]:.3f}; model {version} has {loss:.4f}, {right[1]:.3f}")  # fmt: skip
        if (before["devices"], before["examples"]) != (after["devices"], after["examples"]):
            say(f"the two were not of the same devices: {before['devices']} with {before['examples']} examples, then "
                f"{after['devices']} with {after['examples']}")  # fmt: skip
        if not loss <= was + tolerance * abs(was):
            do(Evaluate(former, share=share, order=version, against=version))
            return False
    do(Release(version))
    return True


def _stages(context: click.Context, parameter: click.Parameter, value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or not value or not 0 < value[0] <= value[-1] == 1:
        raise click.BadParameter("ascending shares, the last one 1")
    return value


def _versions(database: Path) -> tuple[dict[int, int], int]:
    """Return the kept models, version to round, and the released version, of which 0 is none."""
    if not database.exists():
        raise click.ClickException(f"{database} does not exist; start the server first")
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            kept = dict(db.execute("SELECT version, round FROM model ORDER BY version").fetchall())
            return kept, int(db.execute("SELECT released FROM federation").fetchone()[0])
    except sqlite3.Error as error:
        raise click.ClickException(f"{database}: {error}; start the server of this version first") from error


_federation = click.argument("federation", type=click.Path(path_type=Path, dir_okay=False, exists=True))
_version = click.option("--version", "version", type=click.IntRange(1), required=True, help="As models lists them.")


def _database(federation: Path) -> Path:
    try:
        return load(federation).database
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@_federation
@_version
@click.option("--former", type=click.IntRange(1), help="Model to compare with; by default the released one.")
@click.option("--stage", "stages", type=float, multiple=True, default=STAGES, show_default=True, callback=_stages,
              help="Share of the devices that are there; once for each stage.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0), default=0.02, show_default=True,
              help="By how much more, as a share, the loss may be.")  # fmt: skip
def rollout(federation: Path, version: int, former: int | None, stages: tuple[float, ...], tolerance: float) -> None:
    """Bring a model to the devices in stages; the server of FEDERATION must run."""
    database = _database(federation)
    kept, released = _versions(database)
    former = former or released or version - 1
    for one in (version, former):
        if one not in kept:
            raise click.ClickException(f"no model {one} is kept; there are {', '.join(map(str, kept))}")
    if former == version:
        raise click.ClickException(f"model {version} is the released one; name another, or --former")
    try:
        if not roll_out(lambda request: ask(database, request), version, former, stages, tolerance, click.echo):
            raise click.ClickException(f"model {version} is worse: those that had it have model {former} again")
    except TaskError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"model {version} is released")


@click.command()
@_federation
@_version
def rollback(federation: Path, version: int) -> None:
    """Go on from an earlier model, which becomes the next version; the server of FEDERATION must run."""
    try:
        result = ask(_database(federation), RollBack(version))
    except TaskError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"model {result['version']} is model {version} again; training goes on from it")


@click.command()
@_federation
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def models(federation: Path, as_json: bool) -> None:
    """List the models that are kept."""
    kept, released = _versions(_database(federation))
    if as_json:
        click.echo(json.dumps([{"version": v, "round": r, "released": v == released} for v, r in kept.items()]))
        return
    for version, number in kept.items():
        click.echo(f"model {version}, of round {number}{', released' if version == released else ''}")
