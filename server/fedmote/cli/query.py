# SPDX-License-Identifier: Apache-2.0
"""`fedmote query`."""

from __future__ import annotations

from pathlib import Path

import click

from fedmote.cli.ask import print_result
from fedmote.cli.options import cohort_option, federation_argument
from fedmote.errors import TaskError
from fedmote.tasks.heavy_hitters import HeavyHitters
from fedmote.tasks.histogram import Histogram
from fedmote.tasks.quantiles import Quantiles
from fedmote.tasks.requests import Request


@click.command()
@federation_argument
@click.option(
    "--field", required=True, help='Field of the devices\' data: "label", "feature0", or a name in the firmware.'
)
@click.option("--range", "limits", type=(float, float), required=True, metavar="LOW HIGH")
@click.option("--histogram", type=click.IntRange(1, 32), metavar="BINS", help="Counts in this many bins, sum and mean.")
@click.option("--quantile", type=float, multiple=True, metavar="SHARE", help="0.5: the median. May be repeated.")
@click.option("--heavy", type=float, metavar="SHARE", help="Integers that make up at least this share of the values.")
@cohort_option
def query(
    federation: Path, field: str, limits: tuple[float, float], histogram: int | None, quantile: tuple[float, ...],
    heavy: float | None, cohort: int,
) -> None:  # fmt: skip
    """Ask about a field of the devices' data; the server of FEDERATION must run."""
    if sum(bool(what) for what in (histogram, quantile, heavy)) != 1:
        raise click.UsageError("give one of --histogram, --quantile and --heavy")
    low, high = limits
    request: Request
    if histogram:
        request = Histogram(field, low, high, histogram, cohort)
    elif quantile:
        request = Quantiles(field, low, high, quantile, cohort=cohort)
    elif low.is_integer() and high.is_integer():
        request = HeavyHitters(field, int(low), int(high), heavy or 0.0, cohort)
    else:
        raise TaskError(f"range {low} to {high}: codes are whole numbers")
    print_result(federation, request)
