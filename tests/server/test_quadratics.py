# SPDX-License-Identifier: Apache-2.0
"""Where FedAvg and FedNova converge, with the real session and round code, compared with their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from quadratics import Fields, converge, distance

from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova


@pytest.mark.parametrize("seed", range(5))
def test_each_converges_to_its_own_fixed_point(seed: int) -> None:
    """Each converges to its own fixed point for random curvatures, optima, shares and steps. A device without steps is
    left out.
    """
    fields = Fields.draw(seed)
    eta = 0.2
    pulls = fields.pulls(eta)
    average = converge(fields, FedAvg(), eta, idle=seed % 2)
    nova = converge(fields, FedNova(), eta, idle=seed % 2)
    assert np.abs(average - fields.mean(pulls)).max() < 1e-9
    assert np.abs(nova - fields.mean(pulls / fields.tau[:, None])).max() < 1e-9
    assert np.abs(average - nova).max() > 1e-5  # they are not the same


def test_only_fednova_comes_closer_to_the_optimum_with_smaller_steps() -> None:
    """FedNova's distance shrinks in proportion to eta; FedAvg keeps its bias towards devices with more steps."""
    fields = Fields.draw(100)
    etas = (0.08, 0.04, 0.02)
    ends = {kind: [distance(fields, kind(), eta) for eta in etas] for kind in (FedAvg, FedNova)}
    for larger, smaller in zip(ends[FedNova], ends[FedNova][1:], strict=False):
        assert 1.8 < larger / smaller < 2.2
    for larger, smaller in zip(ends[FedAvg], ends[FedAvg][1:], strict=False):
        assert larger / smaller < 1.3
    assert ends[FedAvg][-1] > 5 * ends[FedNova][-1]
