# SPDX-License-Identifier: Apache-2.0
"""`fedmote rollback`."""

from __future__ import annotations

from pathlib import Path

import click

from fedmote.cli.ask import ask
from fedmote.cli.options import federation_argument, version_option
from fedmote.config.settings import load
from fedmote.tasks.rollback import RollBack


@click.command()
@federation_argument
@version_option
def rollback(federation: Path, version: int) -> None:
    """Return to an earlier model, which becomes the next version; the server of FEDERATION must run."""
    result = ask(load(federation).database, RollBack(version))
    click.echo(f"model {result['version']} is model {version} again; training goes on from it")
