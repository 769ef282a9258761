# SPDX-License-Identifier: Apache-2.0
"""The house: which package may import which, how large a file may be, and what is public."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sizes import MOST_CLASS_LINES, MOST_FILE_LINES, too_large

import fedmote

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "fedmote"
GENERATED = {*SERVER.glob("wire/[A-Z]*.py"), ROOT / "csdk" / "src" / "fm_wire_tables.h"}
FOLDERS = ("server", "bindings", "csdk", "bench", "tests", "firmware_examples")


def files(*suffixes: str) -> list[Path]:
    """The project's own files with these endings."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = [ROOT / name for name in listed.splitlines()]
    return [path for path in found if path.suffix in suffixes and path not in GENERATED and path.exists()]


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", str(config)]
    return subprocess.run(command, cwd=config.parent, capture_output=True, text=True)


def test_packages_import_one_another_as_declared() -> None:
    """The contracts are in pyproject.toml, [tool.importlinter]."""
    result = lint_imports(ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_against_the_arrows_is_found(tmp_path: Path) -> None:
    """The same linter, on the same contract turned round: it must fail, or the test above would mean nothing."""
    layers = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert layers is not None
    turned = [line for line in reversed(layers[1].splitlines()) if line.strip().startswith('"')]
    config = tmp_path / "turned.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["fedmote", "fedmote_device"]\nexclude_type_checking_imports = true\n'
        '[[tool.importlinter.contracts]]\nname = "turned"\ntype = "layers"\nlayers = [\n' + "\n".join(turned) + "\n]\n"
    )
    result = lint_imports(config)
    assert result.returncode != 0 and "is not allowed to import" in result.stdout, result.stdout + result.stderr


def test_every_package_is_in_the_contract() -> None:
    declared = set(re.findall(r"fedmote\.(\w+)", (ROOT / "pyproject.toml").read_text()))
    packages = {page.parent.name for page in SERVER.glob("*/__init__.py")}
    assert packages - declared == set()


@pytest.mark.parametrize("page", sorted(SERVER.glob("**/__init__.py")), ids=lambda page: page.parent.name)
def test_every_package_has_a_first_page(page: Path) -> None:
    """What lives here, what to import from here, what it may import, what never: in three to seven lines."""
    text = page.read_text().split('"""')[1].strip()
    assert 3 <= len(text.splitlines()) <= 7, text
    if page.parent != SERVER:
        assert re.search(r"\b(must never|may not|only|nothing may|never)\b", text, re.IGNORECASE), text


def test_files_and_classes_are_small_or_say_why_not() -> None:
    large = [problem for path in files(".py", ".c", ".h") for problem in too_large(path)]
    assert large == []


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    long_class = "class Long:\n" + "    x = 1\n" * MOST_CLASS_LINES
    cases = {
        "file.py": ("x = 1\n" * (MOST_FILE_LINES + 1), 1),
        "file.c": ("int x;\n" * (MOST_FILE_LINES + 1), 1),
        "reason.c": ("/* Over 350 lines: a split costs 12 bytes of flash. */\n" + "int x;\n" * MOST_FILE_LINES, 0),
        "short.py": ("# Over 350 lines: because\n" + "x = 1\n" * MOST_FILE_LINES, 1),
        "class.py": (long_class, 1),
        "said.py": ("# Over 200 lines: one state machine is read as a whole.\n" + long_class, 0),
        "small.py": ("class Small:\n    x = 1\n", 0),
    }
    for name, (text, count) in cases.items():
        (tmp_path / name).write_text(text)
        assert len(list(too_large(tmp_path / name))) == count, name


def test_public_names_can_be_imported_and_say_what_they_are() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for name in fedmote.__all__:
        value = getattr(fedmote, name)
        if name != "__version__":
            assert inspect.getdoc(value), f"fedmote.{name} has no docstring"
        assert f"`{name}`" in page, f"docs/api.md does not list {name}"
    listed = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert listed == set(fedmote.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        fedmote.Nobody  # noqa: B018
    assert set(fedmote.__all__) <= set(dir(fedmote))


def test_importing_fedmote_is_cheap() -> None:
    """The public names are imported when they are first used."""
    code = "import sys, fedmote; print(*sorted(m for m in sys.modules if m.startswith(('fedmote.', 'paho', 'numpy'))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page.count("\n") < 150
    missing = []
    for name in re.findall(r"`([\w./]+/[\w./]*|[\w.]+\.(?:py|c|h|md|toml))`", page):
        places = (ROOT / name, SERVER / name, ROOT / "csdk" / "src" / name)
        missing += [] if any(place.exists() for place in places) else [name]
    assert missing == []
    for name in re.findall(r"\]\(([\w./]+)\)", page):
        assert (ROOT / "docs" / name).exists(), name


def test_the_architecture_page_lists_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().split("### Packages of the server")[1].split("## The way")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in page.splitlines() if line[:3] == "| `")))
    assert listed == {path.parent.name for path in SERVER.glob("*/__init__.py")} | {"errors"}
