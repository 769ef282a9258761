# SPDX-License-Identifier: Apache-2.0
"""`fedmote models`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedmote.cli.options import database_of, federation_argument, kept_versions


@click.command()
@federation_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(federation: Path, as_json: bool) -> None:
    """List the stored models."""
    kept, released = kept_versions(database_of(federation))
    if as_json:
        click.echo(json.dumps([{"version": v, "round": r, "released": v == released} for v, r in kept.items()]))
        return
    for version, number in kept.items():
        click.echo(f"model {version}, of round {number}{', released' if version == released else ''}")
