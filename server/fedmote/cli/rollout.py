# SPDX-License-Identifier: Apache-2.0
"""`fedmote rollout`."""

from __future__ import annotations

from pathlib import Path

import click

from fedmote.cli.ask import ask
from fedmote.cli.options import federation_argument, version_option
from fedmote.config.settings import load
from fedmote.errors import TaskError
from fedmote.store.models import stored_versions
from fedmote.tasks.rollout import STAGES, roll_out


def _stages(context: click.Context, parameter: click.Parameter, value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or not value or not 0 < value[0] <= value[-1] == 1:
        raise click.BadParameter("ascending shares, the last one 1")
    return value


@click.command()
@federation_argument
@version_option
@click.option("--former", type=click.IntRange(1), help="Model to compare with; by default the released one.")
@click.option("--stage", "stages", type=float, multiple=True, default=STAGES, show_default=True, callback=_stages,
              help="Share of the online devices; once for each stage.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0), default=0.02, show_default=True,
              help="Allowed increase of the loss, as a share.")  # fmt: skip
def rollout(federation: Path, version: int, former: int | None, stages: tuple[float, ...], tolerance: float) -> None:
    """Release a model to the devices in stages; the server of FEDERATION must run."""
    database = load(federation).database
    stored, released = stored_versions(database)
    former = former or released or version - 1
    for one in (version, former):
        if one not in stored:
            raise TaskError(f"no model {one} is kept; there are {', '.join(map(str, stored))}")
    if former == version:
        raise TaskError(f"model {version} is the released one; name another, or --former")
    if not roll_out(lambda request: ask(database, request), version, former, stages, tolerance, click.echo):
        raise TaskError(f"model {version} is worse; the devices that had it have model {former} again")
    click.echo(f"model {version} is released")
