# SPDX-License-Identifier: Apache-2.0
"""Options of the tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """How thorough the slow ones are."""
    parser.addoption("--moments", type=int, default=6, help="moments of a round at which each image loses its power")
