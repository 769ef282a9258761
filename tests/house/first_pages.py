# SPDX-License-Identifier: Apache-2.0
"""What a package's first page, the docstring of its __init__, must say: three to seven lines that are true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LEAST_LINES, MOST_LINES = 3, 7
LIMIT = r"\b(may not|never|nothing|only|alone)\b"
IMPORTS = r"Import from the files here: (.*?)\.(?:\s|$)"


def defined(package: Path) -> set[str]:
    """Return the names of classes, functions and module-level variables that a package defines."""
    names: set[str] = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                names.add(statement.target.id)
    return names


def problems(page: Path, top: Path) -> Iterator[str]:
    """Return what is wrong with the first page of a package; `top` is the outermost one."""
    package = page.parent
    text = (ast.get_docstring(ast.parse(page.read_text())) or "").strip()
    if not LEAST_LINES <= len(text.splitlines()) <= MOST_LINES:
        yield f"{page}: {len(text.splitlines())} lines"
    if package == top:
        return
    if not re.search(LIMIT, text, re.IGNORECASE):
        yield f"{page}: does not say what the package must never import, or who may import it"
    for name in re.findall(r"[\w/]+\.py\b", text):
        if not (package / name).exists() and not (top / name).exists() and not (top.parents[1] / name).exists():
            yield f"{page}: there is no {name}"
    found = re.search(IMPORTS, text, re.DOTALL)
    if found is None:
        listed = set()
        if package.name != "cli":  # nothing may import the command line
            yield f"{page}: does not say what to import from it"
    else:
        listed = set(re.findall(r"\b[A-Z]\w+", found[1]))
    for name in sorted((listed | set(re.findall(r"(\w+)\(\)", text))) - defined(package)):
        yield f"{page}: the package does not define {name}"
