# SPDX-License-Identifier: Apache-2.0
"""Write the C source of the extension `fedmote_device._fedmote` and the tables of its CRC-32.

Called by CMake: `build_ffi.py OUTPUT_DIRECTORY`.
"""

import re
import sys
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
CRC32_POLYNOMIAL = 0xEDB88320  # reflected

WIRE = HERE.parent / "csdk" / "include" / "fedmote" / "fm_wire.h"
HEADERS = ["kernels.h", "wire.h", "device.h", "sansio.h"]


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


def definitions() -> str:
    """What cffi is told: the generated wire structs as they are, then cdef.h; without comments and directives."""
    text = WIRE.read_text() + (HERE / "cdef.h").read_text()
    return re.sub(r"/\*.*?\*/|^#[^\n]*", "", text, flags=re.DOTALL | re.MULTILINE)


def main() -> None:
    """Write both files."""
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    ffi = cffi.FFI()
    ffi.cdef(definitions())
    includes = "\n".join(f'#include "{header}"' for header in HEADERS)
    ffi.set_source("fedmote_device._fedmote", includes)
    ffi.emit_c_code(str(output / "_fedmote.c"))
    (output / "crc32_tables.h").write_text(crc32_header())


if __name__ == "__main__":
    main()
