# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

federation_argument = click.argument("federation", type=click.Path(path_type=Path, dir_okay=False, exists=True))

version_option = click.option(
    "--version",
    "version",
    type=click.IntRange(1),
    required=True,
    help="Version of a stored model; see `fedmote models`.",
)

cohort_option = click.option(
    "--cohort", type=click.IntRange(0), default=0, help="Minimum number of devices asked; 0: all that are online."
)
