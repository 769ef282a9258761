# SPDX-License-Identifier: Apache-2.0
"""Options of the tests, and fixtures for all of them."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, however long one takes on a busy machine: the 200 ms that hypothesis grants an example
# by default are of the wall clock.
settings.register_profile(
    "fedmote", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fedmote")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Set how thorough the slow tests are."""
    parser.addoption("--moments", type=int, default=6, help="moments of a round at which each image loses its power")
    parser.addoption("--kills", type=int, default=10, help="how often the server is killed, of each kind")


@pytest.fixture
def untraced() -> Iterator[None]:
    """Switch coverage off for a test that computes for long: tracing makes Python three times as slow."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)
