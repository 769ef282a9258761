# SPDX-License-Identifier: Apache-2.0
"""What must hold for each public name: it can be imported, has a docstring, and docs/api.md lists it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType


def problems(module: ModuleType, page: str) -> Iterator[str]:
    """Return what is wrong with the names in a module's `__all__`, and with the page that lists them."""
    listed = set(re.findall(r"^\| `(\w+)` \| [^|\s]", page, re.MULTILINE))
    for name in module.__all__:
        if not hasattr(module, name):
            yield f"{name} cannot be imported"
        elif name != "__version__" and not inspect.getdoc(getattr(module, name)):
            yield f"{name} has no docstring"
        if name not in listed:
            yield f"docs/api.md does not list {name}"
    for name in sorted(listed - set(module.__all__)):
        yield f"docs/api.md lists {name}, which is not public"
