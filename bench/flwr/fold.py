# SPDX-License-Identifier: Apache-2.0
"""flwr's part of fold.py, run by the Python that has flwr.

Reads one word a line on standard input and answers with one line: microseconds a call over REPEATS calls.
`decode`: bytes to RecordDict. `numpy`: its arrays to NumPy. `aggregate`: the weighted mean of one update, `aggregate10`
that of ten, divided by ten. `size`: bytes of the update.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

SHAPES = ((64, 32), (32,), (32, 10), (10,))
REPEATS = 100


def main() -> None:
    generator = np.random.default_rng(1)
    arrays = ArrayRecord([generator.standard_normal(shape).astype(np.float32) for shape in SHAPES])
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 36})})
    raw = recorddict_to_proto(content).SerializeToString()

    def decode() -> RecordDict:
        return recorddict_from_proto(ProtoRecordDict.FromString(raw))

    decoded = decode()
    ten = [decode() for _ in range(10)]
    work: dict[str, tuple[Callable[[], object], int]] = {
        "decode": (decode, 1),
        "numpy": (lambda: [array.numpy() for array in decoded["arrays"].values()], 1),
        "aggregate": (lambda: aggregate_arrayrecords([decoded], "num-examples"), 1),
        "aggregate10": (lambda: aggregate_arrayrecords(ten, "num-examples"), 10),
    }
    for line in sys.stdin:
        word = line.strip()
        if word == "size":
            print(len(raw), flush=True)
            continue
        call, updates = work[word]
        start = time.perf_counter()
        for _ in range(REPEATS):
            call()
        print((time.perf_counter() - start) / REPEATS / updates * 1e6, flush=True)


if __name__ == "__main__":
    main()
