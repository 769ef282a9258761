# SPDX-License-Identifier: Apache-2.0
"""The model's layout: which tensors, in which order, make up the flat vector."""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One shared tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The shared tensors in order."""

    tensors: tuple[Tensor, ...]

    @property
    def elements(self) -> int:
        """Elements of all tensors together."""
        return sum(t.count for t in self.tensors)

    @property
    def crc32(self) -> int:
        """What Hello's layout_crc32 must be (docs/wire.md, "Layout")."""
        crc = 0
        for tensor in self.tensors:
            crc = zlib.crc32(tensor.name.encode() + b"\0" + struct.pack("<I", tensor.count), crc)
        return crc

    def arrays(self, model: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Cut the flat vector into the tensors."""
        out, at = {}, 0
        for tensor in self.tensors:
            out[tensor.name] = model[at : at + tensor.count].reshape(tensor.shape)
            at += tensor.count
        return out

    def glorot(self, seed: int) -> NDArray[np.float32]:
        """Return a start: matrices uniform in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010), vectors 0."""
        rng = np.random.default_rng(seed)
        parts = []
        for tensor in self.tensors:
            limit = math.sqrt(6 / (tensor.shape[0] + tensor.shape[-1])) if len(tensor.shape) > 1 else 0.0
            parts.append(rng.uniform(-limit, limit, tensor.count).astype(np.float32))
        return np.concatenate(parts)


def dense(widths: tuple[int, ...]) -> Layout:
    """Return the layout of the C trainer's network: kernel [in, out] and bias of each layer."""
    tensors = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        tensors += [Tensor(f"dense{i}.kernel", (n_in, n_out)), Tensor(f"dense{i}.bias", (n_out,))]
    return Layout(tuple(tensors))
