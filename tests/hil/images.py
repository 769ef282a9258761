# SPDX-License-Identifier: Apache-2.0
"""Firmware images for tests, each built as its device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fetch_sources() -> None:
    """Fetch lwIP, which cortex_m3_mqtt is built with, if it is missing."""
    subprocess.run([ROOT / "firmware_examples" / "fetch_sources.sh"], check=True)


def build(name: str, device_id: str, partition: int, partitions: int, **settings: str) -> Path:
    """Build firmware_examples/`name` as this device, with its share of the digits; return the ELF.

    settings: CMake's, in addition. An example's images are built in one folder, where only what differs is compiled.
    """
    folder = ROOT / "build" / "hil" / name
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    configure = ["cmake", "-S", str(ROOT / "firmware_examples" / name), "-B", str(folder), "-G", "Ninja"]
    configure += [f"-DFEDMOTE_DEVICE_ID={device_id}", f"-DFEDMOTE_PARTITION={partition}"]
    configure += [f"-DFEDMOTE_PARTITIONS={partitions}", *(f"-D{key}={value}" for key, value in settings.items())]
    for command in (configure, ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return Path(shutil.copy(folder / f"{name}.elf", folder / f"{device_id}-{partition}-{partitions}.elf"))
