# SPDX-License-Identifier: Apache-2.0
"""Devices for the figures: real C clients in one process, which ends when standard input has a line or ends.

Usage: devices.py URL FIRST COUNT [ENCODING]. The work of a round is one training step on one example.
Prints `ready` before the first poll, and at the end the counters of all devices as one line of JSON.
"""

from __future__ import annotations

import json
import select
import sys

import numpy as np
from common import FEDERATION, WIDTHS

from fedmote_device import CTrainer, Device, run_many


def main() -> None:
    url, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    encoding = sys.argv[4] if len(sys.argv) > 4 else "float32"
    trainer = CTrainer(WIDTHS, np.ones((1, WIDTHS[0]), np.float32), np.zeros(1, np.uint8))
    devices = [
        Device(f"device-{i}", url, federation=FEDERATION, trainer=trainer, seed=i + 1, encoding=encoding)
        for i in range(first, first + count)
    ]
    print("ready", flush=True)
    run_many(devices, lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
    for device in devices:
        device.close()
    print(json.dumps([{**device.counters, "link": device.link_counters} for device in devices]), flush=True)


if __name__ == "__main__":
    main()
