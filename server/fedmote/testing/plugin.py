# SPDX-License-Identifier: Apache-2.0
"""What pytest finds of fedmote by itself. Whatever is heavy is imported by the fixture that needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fedmote.testing.federation import RunningFederation
    from fedmote.testing.links import LinkFaults


@pytest.fixture
def link_faults() -> Iterator[Callable[..., LinkFaults]]:
    """Make links that fail: `link_faults(loss=0.01, seed=3).serial(path)`; see LinkFaults."""
    from fedmote.testing.links import LinkFaults

    with contextlib.ExitStack() as stack:

        def make(**faults: Any) -> LinkFaults:
            return stack.enter_context(LinkFaults(**faults))

        yield make


@pytest.fixture
def federation(link_faults: object) -> Iterator[Callable[..., RunningFederation]]:
    """Run a federation: `federation(devices=3, ports=[device.serial_path])`; see RunningFederation.

    It ends before the links do.
    """
    from fedmote.testing.federation import RunningFederation

    with contextlib.ExitStack() as stack:

        def make(devices: int = 2, **options: Any) -> RunningFederation:
            return stack.enter_context(RunningFederation(devices, **options))

        yield make
