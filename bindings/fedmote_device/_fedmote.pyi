# SPDX-License-Identifier: Apache-2.0
# The cffi extension: C values are opaque here; the modules around it are typed in full.
from typing import Any

ffi: Any
lib: Any
