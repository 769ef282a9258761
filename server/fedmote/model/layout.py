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

MOST_CLASSES = 15  # of devices; the wire has four bits for them
ROUNDING = 1e-9  # what a share times a number may be above the whole number that is meant: 0.55 * 100 is more than 55


@dataclass(frozen=True, slots=True)
class Tensor:
    """One shared tensor."""

    name: str
    shape: tuple[int, ...]
    scale: tuple[bool, ...] | None = None  # of each axis: whether a sub-model has a share of it; None: not said

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The shared tensors in order, and the shares of their hidden widths that classes of devices hold (classes())."""

    tensors: tuple[Tensor, ...]
    widths: tuple[float, ...] = (1.0,)

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

    def classes(self) -> tuple[SubLayout, ...]:
        """Return what each class of devices holds: the whole model first. ValueError: that cannot be said."""
        if not self.widths or self.widths[0] != 1 or not all(0 < b < a for a, b in itertools.pairwise(self.widths)):
            raise ValueError("widths must begin with 1.0 and fall, each above 0")
        if len(self.widths) > MOST_CLASSES:
            raise ValueError(f"{len(self.widths)} widths; at most {MOST_CLASSES} are told apart")
        classes: list[SubLayout] = [SubLayout(self, None)]
        for share in self.widths[1:]:
            one = self._sub(share)
            if any((one.elements, one.crc32) == (other.elements, other.crc32) for other in classes):
                raise ValueError(f"width {share:g} gives the same sub-model as a larger one")
            classes.append(one)
        return tuple(classes)

    def _sub(self, share: float) -> SubLayout:
        tensors, indices, at = [], [], 0
        for tensor, scales in zip(self.tensors, self._scales(), strict=True):
            shape = tuple(
                math.ceil(share * n - ROUNDING) if scaled else n for n, scaled in zip(tensor.shape, scales, strict=True)
            )
            place = np.arange(at, at + tensor.count, dtype=np.int64).reshape(tensor.shape)
            indices.append(place[tuple(slice(n) for n in shape)].ravel())
            tensors.append(Tensor(tensor.name, shape))
            at += tensor.count
        return SubLayout(Layout(tuple(tensors)), np.concatenate(indices))

    def _scales(self) -> list[tuple[bool, ...]]:
        """Return of each tensor which axes a sub-model has a share of: as the tensors say, or those of a chain."""
        if any(tensor.scale is not None for tensor in self.tensors):
            return [tensor.scale or (False,) * len(tensor.shape) for tensor in self.tensors]
        kernels, biases = self.tensors[::2], self.tensors[1::2]
        fits = len(kernels) == len(biases) and all(
            len(kernel.shape) == 2 and bias.shape == kernel.shape[1:]
            for kernel, bias in zip(kernels, biases, strict=True)
        )
        if not fits or any(a.shape[1] != b.shape[0] for a, b in itertools.pairwise(kernels)):
            raise ValueError(
                "the tensors are no chain of kernels [in, out] and biases [out]; give each that a sub-model has less "
                "of a scale, true for each axis that shrinks: scale = [false, true]"
            )
        scales: list[tuple[bool, ...]] = []
        for i in range(len(kernels)):
            hidden = i < len(kernels) - 1
            scales += [(i > 0, hidden), (hidden,)]
        return scales

    def glorot(self, seed: int) -> NDArray[np.float32]:
        """Return a start: matrices uniform in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010), vectors 0."""
        rng = np.random.default_rng(seed)
        parts = []
        for tensor in self.tensors:
            limit = math.sqrt(6 / (tensor.shape[0] + tensor.shape[-1])) if len(tensor.shape) > 1 else 0.0
            parts.append(rng.uniform(-limit, limit, tensor.count).astype(np.float32))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class SubLayout:
    """What a class of devices holds of a model: its own layout, and where in the whole flat vector each element is.

    The first so many of each scaled axis (HeteroFL, Diao et al. 2021, arXiv:2010.01264), so the places ascend.
    places: None for the whole model.
    """

    layout: Layout
    places: NDArray[np.int64] | None

    @property
    def elements(self) -> int:
        """Elements that such a device holds."""
        return self.layout.elements

    @property
    def crc32(self) -> int:
        """Its Hello's layout_crc32."""
        return self.layout.crc32

    def cut(self, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class's part of a whole model."""
        return model if self.places is None else model[self.places]

    def ranges(self, own: NDArray[np.uint32] | None) -> NDArray[np.uint32] | None:
        """Return where in the whole vector an update is whose ranges are `own` in the class's vector.

        (first, count) pairs, ascending and apart; None: the whole vector.
        """
        if self.places is None:
            return own
        places = self.places
        if own is not None:
            places = np.concatenate([places[first : first + count] for first, count in own.tolist()])
        starts = np.concatenate([[0], np.flatnonzero(np.diff(places) != 1) + 1])
        counts = np.diff(np.append(starts, places.size))
        return np.column_stack([places[starts], counts]).astype(np.uint32)


def dense(widths: tuple[int, ...], shares: tuple[float, ...] = (1.0,)) -> Layout:
    """Return the layout of the C trainer's network: kernel [in, out] and bias of each layer. shares: Layout.widths."""
    tensors = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        tensors += [Tensor(f"dense{i}.kernel", (n_in, n_out)), Tensor(f"dense{i}.bias", (n_out,))]
    return Layout(tuple(tensors), shares)


Model = NDArray[np.float32]
