# SPDX-License-Identifier: Apache-2.0
"""Write the C source of the extension `fedmote_device._fedmote` and the tables of its CRC-32.

CMake calls `build_ffi.py OUTPUT_DIRECTORY COMPILER ARGUMENT...` with the include folders and definitions that it
compiles the extension with.
"""

import re
import subprocess
import sys
from pathlib import Path

import cffi

CRC32_POLYNOMIAL = 0xEDB88320  # reflected

ROOT = Path(__file__).resolve().parent.parent
OWN_FOLDERS = (ROOT / "bindings", ROOT / "csdk")
INCLUDES = "\n".join(f'#include "{header}"' for header in ("kernels.h", "wire.h", "device.h", "sansio.h")) + "\n"


def crc32_tables(count: int = 8) -> list[list[int]]:
    """Table t maps a byte to its effect on the CRC-32 after t more bytes."""
    tables: list[list[int]] = [[]]
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (CRC32_POLYNOMIAL if value & 1 else 0)
        tables[0].append(value)
    for t in range(1, count):
        tables.append([(before >> 8) ^ tables[0][before & 0xFF] for before in tables[t - 1]])
    return tables


def crc32_fold_constant(bits: int) -> int:
    """x^bits modulo CRC-32's polynomial, in the form that carry-less multiplication of reflected data takes."""
    remainder = 0x80000000  # x^0, reflected
    for _ in range(bits):
        remainder = (remainder >> 1) ^ (CRC32_POLYNOMIAL if remainder & 1 else 0)
    return remainder << 1


def crc32_header() -> str:
    """Text of crc32_tables.h."""
    lines = ["/* Made by bindings/build_ffi.py. */", "#ifndef FMB_CRC32_TABLES_H", "#define FMB_CRC32_TABLES_H"]
    lines.append("#include <stdint.h>")
    for size in (64, 16):
        lines.append(f"#define FMB_CRC_FOLD_{size}_LOW 0x{crc32_fold_constant(8 * size + 32):X}uLL")
        lines.append(f"#define FMB_CRC_FOLD_{size}_HIGH 0x{crc32_fold_constant(8 * size - 32):X}uLL")
    tables = crc32_tables()
    lines.append(f"static const uint32_t fmb_crc_tables[{len(tables)}][256] = {{")
    for table in tables:
        values = [f"0x{value:08X}u" for value in table]
        rows = [", ".join(values[i : i + 8]) for i in range(0, 256, 8)]
        lines.append("  {" + ",\n   ".join(rows) + "},")
    lines += ["};", "#endif", ""]
    return "\n".join(lines)


def own_lines(preprocessed: str) -> str:
    """Return the lines that come from this project's headers, without those of the system's."""
    kept = []
    own = False
    for line in preprocessed.splitlines():
        marker = re.match(r'#(?:line)? \d+ "(.*?)"', line)
        if marker is not None:
            own = any(Path(marker[1]).resolve().is_relative_to(folder) for folder in OWN_FOLDERS)
        elif own and not line.startswith("#"):
            kept.append(line)
    return "\n".join(kept)


def declarations(preprocessor: list[str]) -> str:
    """Return what the headers declare, in the form that cffi reads.

    `preprocessor` is the compiler with its include folders and definitions. They decide the sizes of structs, so they
    must be the extension's own. A function that a header declares as `extern` is implemented in Python.
    """
    command = [*preprocessor, "-E", "-x", "c", "-"]
    result = subprocess.run(command, input=INCLUDES, stdout=subprocess.PIPE, text=True, check=True)
    return re.sub(r"\bextern\b", 'extern "Python+C"', own_lines(result.stdout))


def main() -> None:
    """Write both files."""
    output, *preprocessor = sys.argv[1:]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    ffi = cffi.FFI()
    ffi.cdef(declarations(preprocessor))
    ffi.set_source("fedmote_device._fedmote", INCLUDES)
    ffi.emit_c_code(str(folder / "_fedmote.c"))
    (folder / "crc32_tables.h").write_text(crc32_header())


if __name__ == "__main__":
    main()
