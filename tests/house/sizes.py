# SPDX-License-Identifier: Apache-2.0
"""How large files and classes may be: 350 lines a file, 200 a class, unless a line at the file's top says why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MOST_FILE_LINES = 350
MOST_CLASS_LINES = 200
TOP_LINES = 30  # in which the reason stands
REASON = r"^\W*Over {lines} lines: \S+(?: \S+){{3,}}"


def gives_reason(lines: list[str], most: int) -> bool:
    """Tell whether the top of a file says why it, or a class in it, has more lines."""
    return any(re.match(REASON.format(lines=most), line) for line in lines[:TOP_LINES])


def too_large(path: Path) -> Iterator[str]:
    """What of a file is too large and gives no reason."""
    lines = path.read_text().splitlines()
    if len(lines) > MOST_FILE_LINES and not gives_reason(lines, MOST_FILE_LINES):
        yield f"{path}: {len(lines)} lines"
    if path.suffix != ".py" or gives_reason(lines, MOST_CLASS_LINES):
        return
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef) and (count := (node.end_lineno or 0) - node.lineno + 1) > MOST_CLASS_LINES:
            yield f"{path}: class {node.name}, {count} lines"
