# SPDX-License-Identifier: Apache-2.0
"""The server's native kernels: checksums and folds. Each call runs in C with the GIL released."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

Buffer = bytes | bytearray | memoryview | NDArray[Any]
"""Types that these functions read bytes from. The memory must be contiguous."""

FLOAT32: Final[int] = lib.FMB_ENCODING_FLOAT32
"""Encoding of 4 bytes an element."""
INT8: Final[int] = lib.FMB_ENCODING_INT8
"""Encoding of 1 byte an element, times the chunk's scale."""

UPDATE_CHUNK: Final[int] = lib.FM_BODY_UPDATE_CHUNK
"""Body type of an UpdateChunk."""

FOLDED: Final[int] = lib.FMB_FOLD_OK
"""fold's result: accumulated."""
NON_FINITE: Final[int] = lib.FMB_FOLD_NON_FINITE
"""fold's result: NaN, infinity or a value beyond float32; nothing was accumulated."""
BAD_SIZES: Final[int] = lib.FMB_FOLD_SIZES
"""fold's result: lengths, ranges or chunks that do not fit together; nothing was accumulated."""

_new = ffi.new
_from_buffer = ffi.from_buffer
_NULL = ffi.NULL
_UPDATE = ffi.typeof("fmb_update_t *")
_CHANGE = ffi.typeof("fmb_change_t *")
_BYTES = ffi.typeof("uint8_t[]")
_FLOATS = ffi.typeof("float[]")
_DOUBLES = ffi.typeof("double[]")
_WORDS = ffi.typeof("uint32_t[]")
_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)
_UINT32 = np.dtype(np.uint32)


def crc32(data: Buffer, value: int = 0) -> int:
    """Return the CRC-32 of zlib and Ethernet over `data`, continued from `value`."""
    view = _from_buffer(_BYTES, data)
    return int(lib.fmb_crc32(value, view, len(view)))


def all_finite(values: NDArray[np.float32]) -> bool:
    """Return whether no element is NaN or infinite."""
    if values.dtype != _FLOAT32:
        raise TypeError("values must be float32")
    view = _from_buffer(_BYTES, values)
    return bool(lib.fmb_all_finite(view, len(view) // 4))


class ChunkData(Protocol):
    """What the chunks of one update hold, and which elements of the model they cover."""

    @property
    def data(self) -> Buffer:
        """The data of all chunks end to end, with gaps for missing ones; any alignment."""

    @property
    def encoding(self) -> int:
        """FLOAT32 or INT8."""

    @property
    def scales(self) -> NDArray[np.float32] | None:
        """One for each chunk of INT8; otherwise ignored."""

    @property
    def chunk_elements(self) -> int:
        """Elements of each chunk but the last."""

    @property
    def received(self) -> NDArray[np.uint8] | bytearray | None:
        """One byte for each chunk, 0 for a gap; None: all chunks arrived."""

    @property
    def ranges(self) -> NDArray[np.uint32] | None:
        """Pairs (first, count) of elements, ascending and apart, of shape (k, 2); None or empty: the whole model."""


def _part_views(chunks: ChunkData) -> tuple[CData, int, CData, int, CData, int]:
    """Return C arrays of the scales, the chunks received and the ranges, each with its count."""
    scales, scale_count, received, received_count, ranges, range_count = _NO_PARTS
    if chunks.scales is not None:
        if chunks.scales.dtype != _FLOAT32:
            raise TypeError("scales must be float32")
        scales, scale_count = _from_buffer(_FLOATS, chunks.scales), chunks.scales.size
    if chunks.received is not None:
        received, received_count = _from_buffer(_BYTES, chunks.received), len(chunks.received)
    if chunks.ranges is not None:
        if chunks.ranges.dtype != _UINT32 or chunks.ranges.size % 2 != 0:
            raise TypeError("ranges must be uint32 pairs")
        ranges, range_count = _from_buffer(_WORDS, chunks.ranges), chunks.ranges.size // 2
    return scales, scale_count, received, received_count, ranges, range_count


_NO_PARTS = (_NULL, 0, _NULL, 0, _NULL, 0)


def _check_model_arrays(
    sum: NDArray[np.float64], weight: NDArray[np.float64] | None, base: NDArray[np.float32] | None
) -> None:
    if sum.dtype != _FLOAT64 or (weight is not None and (weight.dtype != _FLOAT64 or sum.size != weight.size)):
        raise TypeError("sum and weight must be float64 and of one size")
    if base is not None and (base.dtype != _FLOAT32 or base.size != sum.size):
        raise TypeError("base must be float32 and of sum's size")


def fold(
    sum: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    base: NDArray[np.float32] | None,
    chunks: ChunkData,
    example_weight: float,
) -> int:
    """Add one update to `sum` and `weight`, which are changed in place.

    Each element e that the update covers gets `sum[e] += example_weight * value` and `weight[e] += example_weight`.
    The whole update is checked before anything is added.

    sum, weight: float64, one for each element of the model. With weight None only `sum` changes. An accumulator can
    then keep the weight of all updates that cover the whole model in one number (see `finish`), which is much faster.
    base: for a delta, the float32 model that it adds to (value = base + delta); None when the data are weights.
    example_weight: greater than 0, at most 1e18.

    Return FOLDED, or NON_FINITE or BAD_SIZES with both arrays unchanged. Raise TypeError for arrays of the wrong type:
    that is the caller's mistake and never the device's.
    """
    _check_model_arrays(sum, weight, base)
    update = _update(chunks, base, example_weight)
    weight_view = _NULL if weight is None else _from_buffer(_DOUBLES, weight, True)
    result: int = lib.fmb_fold(_from_buffer(_DOUBLES, sum, True), weight_view, sum.size, update)
    return result


def measure(base: NDArray[np.float32], delta: bool, chunks: ChunkData) -> tuple[float, int] | None:
    """Return the sum of the squared differences of an update to the model it starts from, and of how many elements.

    base: that model, float32. delta: whether the data are differences already. The sum is not finite if an element is
    not. None: lengths, ranges or chunks do not fit together.
    """
    if base.dtype != _FLOAT32:
        raise TypeError("base must be float32")
    change = _new(_CHANGE)
    update = _update(chunks, None, 1.0)
    if lib.fmb_measure(_from_buffer(_FLOATS, base), base.size, update, delta, change) != FOLDED:
        return None
    return change.squares, change.covered


def _update(chunks: ChunkData, base: NDArray[np.float32] | None, example_weight: float) -> CData:
    """Return a C struct of an update. It refers to the arrays of `chunks` and to `base`, which must outlive it."""
    has_parts = chunks.scales is not None or chunks.received is not None or chunks.ranges is not None
    scales, scale_count, received, received_count, ranges, range_count = _part_views(chunks) if has_parts else _NO_PARTS
    data = _from_buffer(_BYTES, chunks.data)
    fields = (
        data, len(data), _NULL if base is None else _from_buffer(_FLOATS, base), scales, scale_count, received,
        received_count, chunks.chunk_elements, ranges, range_count, example_weight, chunks.encoding,
    )  # fmt: skip
    update: CData = _new(_UPDATE, fields)
    return update


def finish(
    sum: NDArray[np.float64], weight: NDArray[np.float64], base: NDArray[np.float32], whole: float = 0.0
) -> NDArray[np.float32]:
    """Return the mean `sum / (weight + whole)` of each element that an update covers, and `base` elsewhere.

    whole: weight of every element in addition to `weight`, from updates folded with `weight=None`.
    """
    if sum.dtype != _FLOAT64 or weight.dtype != _FLOAT64 or base.dtype != _FLOAT32:
        raise TypeError("sum and weight must be float64, base float32")
    if not sum.size == weight.size == base.size:
        raise ValueError("sum, weight and base must have one size")
    out = np.empty(base.size, np.float32)
    lib.fmb_finish(
        _from_buffer(_DOUBLES, sum),
        _from_buffer(_DOUBLES, weight),
        whole,
        _from_buffer(_FLOATS, base),
        _from_buffer(_FLOATS, out, True),
        out.size,
    )
    return out


def verify(message: bytes) -> int:
    """Return the body type of a valid message (a member of `fedmote.wire.Body`), 0 for anything else."""
    return int(lib.fmb_verify(message, len(message)))


_chunk = _new("fmb_update_chunk_t *")
_chunk_bytes = ffi.buffer(_chunk)
_read_chunk = struct.Struct("=IIIIf").unpack  # all fields in one call, which takes half the time of one call for each

ChunkHead = tuple[int, int, int, int, float]
"""Of an UpdateChunk: (round, index, offset of its data in the message, size of its data in bytes, scale)."""


def parse_update_chunk(message: bytes) -> ChunkHead | None:
    """Verify an UpdateChunk and return its head.

    Return None for anything else. Not for several threads at once.
    """
    if lib.fmb_read_update_chunk(message, len(message), _chunk) != UPDATE_CHUNK:
        return None
    head: ChunkHead = _read_chunk(_chunk_bytes)
    return head
