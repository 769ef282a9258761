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

Model = NDArray[np.float32]
"""A model as one flat vector, tensor after tensor."""

MOST_CLASSES = 15  # device classes; the wire has four bits for their index
ROUNDING = 1e-9  # tolerance of a share times a number: 0.55 * 100 is a little more than 55, and 55 is meant


@dataclass(frozen=True, slots=True)
class Tensor:
    """One shared tensor."""

    name: str
    shape: tuple[int, ...]
    scale: tuple[bool, ...] | None = None  # for each axis, whether a sub-model holds a share of it; None: not given

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The shared tensors in order, and the widths of the sub-models.

    widths: for each class of devices, the share of the hidden widths that it holds; the first is 1.0. See classes().
    """

    tensors: tuple[Tensor, ...]
    widths: tuple[float, ...] = (1.0,)

    @property
    def elements(self) -> int:
        """Number of elements of all tensors."""
        return sum(t.count for t in self.tensors)

    @property
    def crc32(self) -> int:
        """The layout's checksum, as Hello's layout_crc32 has it (docs/wire.md, "Layout")."""
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
        """Return what each class of devices holds, the whole model first. ValueError: the widths do not work."""
        if not self.widths or self.widths[0] != 1 or not all(0 < b < a for a, b in itertools.pairwise(self.widths)):
            raise ValueError("widths must begin with 1.0 and fall, each above 0")
        if len(self.widths) > MOST_CLASSES:
            raise ValueError(f"there are {len(self.widths)} widths; at most {MOST_CLASSES} are possible")
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

    def _is_dense_chain(self) -> bool:
        """Tell whether the tensors are kernels [in, out] and biases [out] of dense layers, one after the other."""
        kernels, biases = self.tensors[::2], self.tensors[1::2]
        if len(kernels) != len(biases) or any(len(kernel.shape) != 2 for kernel in kernels):
            return False
        pairs = zip(kernels, biases, strict=True)
        return all(bias.shape == kernel.shape[1:] for kernel, bias in pairs) and all(
            a.shape[1] == b.shape[0] for a, b in itertools.pairwise(kernels)
        )

    def _scales(self) -> list[tuple[bool, ...]]:
        """Return, for each tensor, the axes that shrink in a sub-model.

        They are those that the tensors name, else those of a dense chain.
        """
        if any(tensor.scale is not None for tensor in self.tensors):
            return [tensor.scale or (False,) * len(tensor.shape) for tensor in self.tensors]
        kernels = self.tensors[::2]
        if not self._is_dense_chain():
            raise ValueError(
                "the tensors are not a chain of kernels [in, out] and biases [out]; give each tensor that shrinks in a "
                "sub-model a scale, true for each axis that shrinks: scale = [false, true]"
            )
        scales: list[tuple[bool, ...]] = []
        for i in range(len(kernels)):
            hidden = i < len(kernels) - 1
            scales += [(i > 0, hidden), (hidden,)]
        return scales


@dataclass(frozen=True, slots=True)
class SubLayout:
    """The part of a model that a class of devices holds.

    It takes the first entries of each scaled axis (HeteroFL, Diao et al. 2021, arXiv:2010.01264).
    layout: its own tensors. places: where each of its elements is in the whole flat vector, ascending; None: it is the
    whole model.
    """

    layout: Layout
    places: NDArray[np.int64] | None

    @property
    def elements(self) -> int:
        """Number of elements that such a device holds."""
        return self.layout.elements

    @property
    def crc32(self) -> int:
        """The checksum that such a device's Hello has as layout_crc32."""
        return self.layout.crc32

    def cut(self, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class's part of a whole model."""
        return model if self.places is None else model[self.places]

    def ranges(self, own: NDArray[np.uint32] | None) -> NDArray[np.uint32] | None:
        """Return the whole vector's ranges for an update with ranges `own` of the class's vector.

        Both are (first, count) pairs, ascending and disjoint; None: the whole vector.
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
    """Return the layout of the C trainer's network: kernel [in, out] and bias of each layer.

    widths: of the layers, the input's first. shares: Layout.widths.
    """
    tensors = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        tensors += [Tensor(f"dense{i}.kernel", (n_in, n_out)), Tensor(f"dense{i}.bias", (n_out,))]
    return Layout(tuple(tensors), shares)
