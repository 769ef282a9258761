# SPDX-License-Identifier: Apache-2.0
"""`fedmote models`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedmote.cli.options import federation_argument
from fedmote.config.settings import load
from fedmote.store.models import stored_versions


@click.command()
@federation_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(federation: Path, as_json: bool) -> None:
    """List the stored models."""
    stored, released = stored_versions(load(federation).database)
    if as_json:
        click.echo(json.dumps([{"version": v, "round": r, "released": v == released} for v, r in stored.items()]))
        return
    for version, number in stored.items():
        click.echo(f"model {version}, of round {number}{', released' if version == released else ''}")
