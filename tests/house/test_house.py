# SPDX-License-Identifier: Apache-2.0
"""The house: which package may import which, how large a file may be, and what is public."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import first_pages
import public_api
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


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the pyproject.toml in a folder."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_packages_import_one_another_as_declared() -> None:
    """The contracts are in pyproject.toml, [tool.importlinter]."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def turned_round(text: str) -> str:
    """Return the contracts with their layers from bottom to top."""
    layers = re.search(r"^layers = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert layers is not None
    return text.replace(layers[1], "".join(reversed(layers[1].splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("contract", "falsify"),
    [
        ("Packages by job, arrows one way", turned_round),
        (
            "Data sets import nothing of fedmote",
            lambda text: text.replace('source_modules = ["fedmote.datasets"]', 'source_modules = ["fedmote.fleet"]'),
        ),
        ("Faulty links import links.url alone", lambda text: re.sub(r"^ignore_imports = .*$", "", text, flags=re.M)),
    ],
)
def test_an_import_against_a_contract_is_found(tmp_path: Path, contract: str, falsify: Callable[[str], str]) -> None:
    """The linter must find what the code does against a false contract, or the test above would mean nothing."""
    text = (ROOT / "pyproject.toml").read_text()
    false = falsify(text)
    assert false != text
    (tmp_path / "pyproject.toml").write_text(false)
    result = lint_imports(tmp_path)
    assert result.returncode != 0 and "is not allowed to import" in result.stdout, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout


def test_every_package_is_in_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    declared = {name.strip() for layer in layers for name in layer.split("|")}
    packages = {f"fedmote.{page.parent.name}" for page in SERVER.glob("*/__init__.py")}
    modules = {f"fedmote.{path.stem}" for path in SERVER.glob("*.py") if path.stem != "__init__"}
    assert declared == packages | modules | {"fedmote_device"}


@pytest.mark.parametrize("page", sorted(SERVER.glob("**/__init__.py")), ids=lambda page: page.parent.name)
def test_every_package_has_a_true_first_page(page: Path) -> None:
    """What lives here, what to import from here, what it may import, what never: in three to seven lines."""
    assert list(first_pages.problems(page, SERVER)) == []


GOOD_PAGE = (
    "Rooms.\n\nImport from the files here: Room, enter().\nrooms.py has them. This package must never import cli."
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD_PAGE, None),
        ("Rooms.", "1 lines"),
        (GOOD_PAGE + "\nA line." * 4, "8 lines"),
        (GOOD_PAGE.replace("must never import", "imports"), "does not say what the package must never import"),
        (GOOD_PAGE.replace("Import from the files here: Room, enter().\n", ""), "does not say what to import"),
        (GOOD_PAGE.replace("rooms.py", "walls.py"), "there is no walls.py"),
        (GOOD_PAGE.replace("enter()", "leave()"), "does not define leave"),
        (GOOD_PAGE.replace("Room,", "Door,"), "does not define Door"),
    ],
)
def test_an_untrue_first_page_is_found(tmp_path: Path, text: str, problem: str | None) -> None:
    package = tmp_path / "server" / "house" / "rooms"
    package.mkdir(parents=True)
    (package / "rooms.py").write_text("class Room: ...\ndef enter() -> None: ...\n")
    (package / "__init__.py").write_text(f'"""{text}\n"""\n')
    found = list(first_pages.problems(package / "__init__.py", package.parent))
    assert not found if problem is None else any(problem in line for line in found), found


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
    assert list(public_api.problems(fedmote, (ROOT / "docs" / "api.md").read_text())) == []


def test_a_public_name_without_page_or_docstring_is_found() -> None:
    module = types.ModuleType("house")
    module.__dict__.update({"__all__": ["Room", "bare", "gone"], "Room": Path, "bare": lambda: None})
    assert list(public_api.problems(module, "| `Room` | a room |\n| `gone` | |\n| `Old` | not there |\n")) == [
        "bare has no docstring",
        "docs/api.md does not list bare",
        "gone cannot be imported",
        "docs/api.md does not list gone",
        "docs/api.md lists Old, which is not public",
    ]


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
