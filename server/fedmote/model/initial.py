# SPDX-License-Identifier: Apache-2.0
"""First models: what round 1 starts from."""

from __future__ import annotations

import math

import numpy as np

from fedmote.model.layout import Layout, Model


def glorot(layout: Layout, seed: int) -> Model:
    """Return a first model drawn from `seed` (Glorot and Bengio 2010).

    Matrices are uniform in +-sqrt(6 / (in + out)), vectors are 0.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for tensor in layout.tensors:
        limit = math.sqrt(6 / (tensor.shape[0] + tensor.shape[-1])) if len(tensor.shape) > 1 else 0.0
        parts.append(rng.uniform(-limit, limit, tensor.count).astype(np.float32))
    return np.concatenate(parts)
