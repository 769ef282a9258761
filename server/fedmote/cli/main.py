# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and their errors on the terminal. Each command has a file of its own beside this one."""

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
from fedmote.errors import BrokerError, ConfigError, StoreError, StrategyError, TaskError


class _Commands(click.Group):
    """Commands whose expected errors become one line on the terminal and exit code 1."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # click ends without a message when a pipe such as `| head` is closed
            raise
        except (BrokerError, ConfigError, ConnectionError, StoreError, StrategyError, TaskError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="fedmote")
def main() -> None:
    """Federated learning for devices that Python cannot reach."""


for _command in (server, demo, simulate, evaluate, query, rollout, rollback, models):
    main.add_command(_command)
