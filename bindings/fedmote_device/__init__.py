# SPDX-License-Identifier: Apache-2.0
"""fedmote's C code for Python: a desktop device, and the server's native kernels.

The public names are those below; `codec` (messages), `kernels` (elements and checksums) and `links` (links without
I/O) are modules of their own. Nothing here imports `fedmote`, the server.
"""

from fedmote_device.device import Device
from fedmote_device.flash import Flash
from fedmote_device.run import run_many
from fedmote_device.setup import Options
from fedmote_device.trainers import CTrainer, NumPyClient, Queryable, field_number

__all__ = ["CTrainer", "Device", "Flash", "NumPyClient", "Options", "Queryable", "field_number", "run_many"]
