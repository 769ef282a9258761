# SPDX-License-Identifier: Apache-2.0
"""The errors that fedmote raises on purpose. Each message says what happened, where, and what to do."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting is wrong; the message names the file, the key and the remedy."""


class BrokerError(Exception):
    """mosquitto is missing or did not start; the message says what to do."""


class StoreError(Exception):
    """The database cannot be used; the message says why and what to do."""


class StoreUnavailableError(StoreError):
    """The database cannot be used now, for example because the disk is full. Nothing was changed; try again."""


class TaskError(Exception):
    """A task gives no result; the message says why and what to do."""


class StrategyError(Exception):
    """Rounds failed one after the other; the message names the strategy and what it did wrong."""
