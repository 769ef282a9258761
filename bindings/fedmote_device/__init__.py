# SPDX-License-Identifier: Apache-2.0
"""fedmote's C code for Python: a desktop device, and the server's native kernels."""

from fedmote_device.device import CTrainer, Device, NumPyClient, Queryable, field_number, run_many
from fedmote_device.flash import Flash

__all__ = ["CTrainer", "Device", "Flash", "NumPyClient", "Queryable", "field_number", "run_many"]
