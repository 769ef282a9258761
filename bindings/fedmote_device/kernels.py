# SPDX-License-Identifier: Apache-2.0
"""The server's native kernels: checksums and folds. Each call runs in C with the GIL released."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib

Buffer = bytes | bytearray | memoryview | NDArray[Any]
"""What these functions read bytes from: anything contiguous that has a buffer."""

FLOAT32: Final = 0
"""`encoding` of fold: 4 bytes an element."""
INT8: Final = 2
"""`encoding` of fold: 1 byte an element, times the chunk's scale."""

UPDATE_CHUNK: Final = 9
"""Body type of an UpdateChunk."""

FOLDED: Final = 0
"""fold's result: accumulated."""
NON_FINITE: Final = 1
"""fold's result: NaN, infinity or a value beyond float32; nothing was accumulated."""
BAD_SIZES: Final = 2
"""fold's result: lengths, ranges or chunks that do not fit together; nothing was accumulated."""

_new = ffi.new
_from_buffer = ffi.from_buffer
_NULL = ffi.NULL
_UPDATE = ffi.typeof("fmb_update_t *")
_BYTES = ffi.typeof("uint8_t[]")
_FLOATS = ffi.typeof("float[]")
_DOUBLES = ffi.typeof("double[]")
_WORDS = ffi.typeof("uint32_t[]")
_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)
_UINT32 = np.dtype(np.uint32)


def crc32(data: Buffer, value: int = 0) -> int:
    """CRC-32 of zlib and Ethernet over `data`, continued from `value`."""
    view = _from_buffer(_BYTES, data)
    return int(lib.fmb_crc32(value, view, len(view)))


def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether no element is NaN or infinite."""
    if values.dtype != _FLOAT32:
        raise TypeError("values must be float32")
    view = _from_buffer(_BYTES, values)
    return bool(lib.fmb_all_finite(view, len(view) // 4))


def fold(
    sum: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    base: NDArray[np.float32] | None,
    data: Buffer,
    encoding: int,
    scales: NDArray[np.float32] | None,
    chunk_elements: int,
    received: NDArray[np.uint8] | bytearray | None,
    ranges: NDArray[np.uint32] | None,
    example_weight: float,
) -> int:
    """Weigh one update into `sum` and `weight`, which are changed in place.

    For each element e that the update speaks for: `sum[e] += example_weight * value` and
    `weight[e] += example_weight`. The whole update is checked before anything is added.

    sum, weight: float64, one per element of the model. With weight None only `sum` changes: an accumulator can keep
    the weight of all updates that speak for the whole model in one number (see `finish`), which is much faster.
    base: for a delta, the float32 model it adds to (value = base + delta); None when the data are weights.
    data: the data of all chunks laid end to end, gaps included; any alignment.
    encoding: FLOAT32 or INT8.
    scales: one per chunk for INT8; None or ignored for FLOAT32.
    chunk_elements: elements of each chunk but the last.
    received: one byte per chunk, 0 for a gap to be skipped; None: all came.
    ranges: uint32 of shape (k, 2), (first, count) ascending and apart; None or empty: the whole model.
    example_weight: greater than 0, at most 1e18.

    Returns FOLDED, or NON_FINITE or BAD_SIZES with both arrays untouched. Raises TypeError or ValueError for
    arrays of the wrong type, which are the caller's mistake and never the device's.
    """
    if sum.dtype != _FLOAT64 or (weight is not None and (weight.dtype != _FLOAT64 or sum.size != weight.size)):
        raise TypeError("sum and weight must be float64 and of one size")
    if base is not None and (base.dtype != _FLOAT32 or base.size != sum.size):
        raise TypeError("base must be float32 and of sum's size")
    if scales is not None and scales.dtype != _FLOAT32:
        raise TypeError("scales must be float32")
    if ranges is not None and (ranges.dtype != _UINT32 or ranges.size % 2 != 0):
        raise TypeError("ranges must be uint32 pairs")
    view = _from_buffer(_BYTES, data)
    chunks = 0
    c_received = c_scales = _NULL
    if received is not None:
        c_received = _from_buffer(_BYTES, received)
        chunks = len(c_received)
    if scales is not None and encoding == INT8:
        c_scales = _from_buffer(_FLOATS, scales)
        if received is not None and len(c_scales) != chunks:
            return BAD_SIZES
        chunks = len(c_scales)
    update = _new(
        _UPDATE,
        (
            view,
            len(view),
            _NULL if base is None else _from_buffer(_FLOATS, base),
            c_scales,
            c_received,
            chunks,
            chunk_elements,
            _NULL if ranges is None else _from_buffer(_WORDS, ranges),
            0 if ranges is None else ranges.size // 2,
            example_weight,
            encoding,
        ),
    )
    c_weight = _NULL if weight is None else _from_buffer(_DOUBLES, weight, True)
    return int(lib.fmb_fold(_from_buffer(_DOUBLES, sum, True), c_weight, sum.size, update))


def finish(
    sum: NDArray[np.float64], weight: NDArray[np.float64], base: NDArray[np.float32], whole: float = 0.0
) -> NDArray[np.float32]:
    """The mean where anyone spoke, `sum / (weight + whole)`, and `base` elsewhere.

    whole: weight that every element has besides, from updates folded with `weight=None`.
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
    """Body type of a valid message (a member of `fedmote.wire.Body`), 0 for anything else."""
    return int(lib.fmb_verify(_from_buffer(_BYTES, message), len(message)))


_chunk = _new("fmb_update_chunk_t *")


def parse_update_chunk(message: bytes) -> tuple[int, int, float, int, int] | None:
    """Verify an UpdateChunk: (round, index, scale, offset of its data in the message, size of it); None: it is none.

    Not for several threads at once.
    """
    if lib.fmb_read_update_chunk(_from_buffer(_BYTES, message), len(message), _chunk) != UPDATE_CHUNK:
        return None
    return _chunk.round, _chunk.index, _chunk.scale, _chunk.data_offset, _chunk.data_size
