# SPDX-License-Identifier: Apache-2.0
"""A separate process for the devices. It runs until its standard input ends, then prints the result of each device."""

from __future__ import annotations

import json
import select
import sys

from work import DEVICES, Trainer

from fedmote_device import Device, run_many

TRY_AGAIN_MS = (100, 400)


def main(broker: str) -> None:
    trainers = [Trainer(index) for index in range(DEVICES)]
    devices = [
        Device(
            f"d{index:02}", broker, federation="f", trainer=trainer, seed=index + 1, backoff_ms=TRY_AGAIN_MS,
            retry_ms=TRY_AGAIN_MS,
        )
        for index, trainer in enumerate(trainers)
    ]  # fmt: skip
    run_many(devices, lambda: bool(select.select([sys.stdin], [], [], 0)[0]), slice_ms=20)
    report = [
        {"fits": trainer.fits, "counters": device.counters} for trainer, device in zip(trainers, devices, strict=True)
    ]
    for device in devices:
        device.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
