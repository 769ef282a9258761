# SPDX-License-Identifier: Apache-2.0
"""`fedmote evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from fedmote.cli.ask import print_result
from fedmote.cli.options import cohort_option, federation_argument
from fedmote.tasks.evaluate import Evaluate


@click.command()
@federation_argument
@click.option("--version", "version", type=click.IntRange(0), default=0, help="Version of the model; 0: the latest.")
@cohort_option
def evaluate(federation: Path, version: int, cohort: int) -> None:
    """Evaluate a committed model on the devices' own data; the server of FEDERATION must run."""
    print_result(federation, Evaluate(version, cohort))
