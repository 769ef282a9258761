# SPDX-License-Identifier: Apache-2.0
# The cffi extension. Its C values are opaque to the type checker; the modules around it are typed in full.
from typing import Any

ffi: Any
lib: Any
