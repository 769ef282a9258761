# SPDX-License-Identifier: Apache-2.0
"""First models: what round 1 starts from."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from fedmote.model.layout import Layout, Model, Tensor

ONES: Final = re.compile(r"(^|[._/])(weight|scale|gamma|running_var|moving_variance)$")
"""Vectors that multiply or divide, by the last part of their name in PyTorch, JAX and Keras: scales of normalisation
layers and variances. With a scale of 0 a layer passes nothing on, and nothing is learned."""


def glorot(layout: Layout, seed: int) -> Model:
    """Return a first model drawn from `seed` (Glorot and Bengio 2010).

    Matrices are uniform in +-sqrt(6 / (in + out)). Vectors are 1 if ONES matches their name, and else 0.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for tensor in layout.tensors:
        if len(tensor.shape) > 1:
            limit = math.sqrt(6 / (tensor.shape[0] + tensor.shape[-1]))
            parts.append(rng.uniform(-limit, limit, tensor.count).astype(np.float32))
        else:
            rng.uniform(0.0, 0.0, tensor.count)  # the draws of the tensors after it do not depend on its kind
            parts.append(np.full(tensor.count, 1.0 if is_scale(tensor) else 0.0, np.float32))
    return np.concatenate(parts)


def is_scale(tensor: Tensor) -> bool:
    """Tell whether a tensor is a vector that multiplies or divides (see ONES)."""
    return len(tensor.shape) == 1 and ONES.search(tensor.name) is not None


def dead_scales(layout: Layout, model: Model) -> list[str]:
    """Return the names of scales that are all 0, so that their layers never learn."""
    at, dead = 0, []
    for tensor in layout.tensors:
        if is_scale(tensor) and not model[at : at + tensor.count].any():
            dead.append(tensor.name)
        at += tensor.count
    return dead
