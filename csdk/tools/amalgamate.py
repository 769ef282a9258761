# SPDX-License-Identifier: Apache-2.0
"""The device library as two files to copy, fedmote.c and fedmote.h: public headers into one, the rest into the other.

Core, links, fm_keep and trainer; a linker that drops unused sections (-ffunction-sections, --gc-sections) leaves out
what is not called. The adapters in csdk/port are copied beside them where wanted.

Usage: amalgamate.py FOLDER [--arduino FOLDER]; the second becomes a library for Arduino's libraries folder.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

CSDK = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"].*$')
DEFINE = re.compile(r"^\s*#\s*define\s+(\w+)")
NOTICE = """/* SPDX-License-Identifier: Apache-2.0 */
/* fedmote {version}, all of the device library in fedmote.c and fedmote.h. Made by `make amalgamation`; do not edit. */
"""


def version() -> str:
    """Return the library's version, from FM_VERSION."""
    text = (CSDK / "include/fedmote/fm_client.h").read_text()
    found = re.search(r"FM_VERSION 0x([0-9a-f]{8})u", text)
    if found is None:
        raise ValueError("fm_client.h does not define FM_VERSION")
    number = int(found.group(1), 16)
    return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"


def undefs(lines: list[str]) -> list[str]:
    """Return #undef lines for the macros that a file defines, which would end with it if it were compiled alone."""
    return [f"#undef {found.group(1)}" for line in lines if (found := DEFINE.match(line))]


class Writer:
    """Replaces #include lines by the files' text, each file once."""

    def __init__(self) -> None:
        self.done: set[Path] = set()
        self.system: list[str] = []

    def find(self, name: str) -> Path:
        """Return the path of a header of the library."""
        for folder in ("include", "src", "train"):
            if (CSDK / folder / name).exists():
                return CSDK / folder / name
        raise FileNotFoundError(name)

    def text_of(self, file: Path) -> list[str]:
        """Return the file's lines, its includes in front; nothing if it was included before."""
        if file in self.done:
            return []
        self.done.add(file)
        before: list[str] = []
        own: list[str] = []
        for line in file.read_text().splitlines():
            found = INCLUDE.match(line)
            if found is None:
                if "SPDX-License-Identifier" not in line:
                    own.append(line)
            elif found.group(1) == "<":
                if found.group(2) not in self.system:
                    self.system.append(found.group(2))
            else:
                before += self.text_of(self.find(found.group(2)))
        return [*before, "", f"/* ---- {file.name} ---- */", *own, *(undefs(own) if file.suffix == ".c" else ())]


def tidy(lines: list[str]) -> str:
    """Reduce blank lines to one in a row."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def amalgamate() -> dict[str, str]:
    """Return the text of both files by name."""
    writer = Writer()
    notice = NOTICE.format(version=version())
    public = [line for file in sorted(CSDK.glob("include/fedmote/*.h")) for line in writer.text_of(file)]
    system = sorted(f"#include <{name}>" for name in writer.system)
    header = ["#ifndef FEDMOTE_H", "#define FEDMOTE_H", "", *system, ""]
    header += ["#ifdef __cplusplus", 'extern "C" {', "#endif", *public, ""]
    header += ["#ifdef __cplusplus", "}", "#endif", "", "#endif"]
    writer.system = []
    sources = [*sorted(CSDK.glob("src/*.c")), *sorted(CSDK.glob("train/*.c"))]
    rest = [line for file in sources for line in writer.text_of(file)]
    system = sorted(f"#include <{name}>" for name in writer.system)
    source = ['#include "fedmote.h"', "", *system, *rest]
    # Headers that the adapters in csdk/port include, so that they compile next to the two files.
    names = [f"fedmote/{file.name}" for file in CSDK.glob("include/fedmote/*.h")]
    forward = dict.fromkeys(names, f'{notice}#include "../fedmote.h"\n')
    return {"fedmote.h": notice + tidy(header), "fedmote.c": notice + tidy(source), **forward}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the two files go")
    parser.add_argument("--arduino", type=Path, metavar="FOLDER", help="make a library for Arduino, too")
    options = parser.parse_args()
    folders = [options.folder]
    if options.arduino:
        folders.append(options.arduino / "src")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in amalgamate().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
    if options.arduino:
        for file in (CSDK / "port/arduino/library.properties", CSDK.parent / "LICENSE"):
            shutil.copy(file, options.arduino)
    return 0


if __name__ == "__main__":
    sys.exit(main())
