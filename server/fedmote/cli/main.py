# SPDX-License-Identifier: Apache-2.0
"""The list of commands. Each one has a file of its own beside this one."""

from __future__ import annotations

import click

from fedmote import __version__
from fedmote.cli.demo import demo
from fedmote.cli.evaluate import evaluate
from fedmote.cli.models import models
from fedmote.cli.query import query
from fedmote.cli.rollback import rollback
from fedmote.cli.rollout import rollout
from fedmote.cli.server import server
from fedmote.cli.simulate import simulate


@click.group()
@click.version_option(__version__, prog_name="fedmote")
def main() -> None:
    """Federated learning for devices that Python cannot reach."""


for _command in (server, demo, simulate, evaluate, query, rollout, rollback, models):
    main.add_command(_command)
