# SPDX-License-Identifier: Apache-2.0
"""fedmote's C code for Python: a desktop device, sans-I/O links and codec, and the server's native kernels."""
