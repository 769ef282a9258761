/* SPDX-License-Identifier: Apache-2.0 */
/* NOR flash in a file, which outlives the process: bits are only cleared by programming and set by erasing blocks. */
#ifndef NOR_FILE_H
#define NOR_FILE_H

#include <stdbool.h>
#include <stddef.h>

#define NOR_SIZE 16384u
#define NOR_BLOCK 4096u

/* The file is named by the environment, STAND_IN_FLASH; it is made, blank, where there is none. False: out of bounds,
 * not aligned (`unit`: bytes programmed at once), a byte programmed twice, or no file. */
bool nor_read(size_t offset, void *out, size_t size);
bool nor_program(size_t offset, const void *bytes, size_t size, size_t unit);
bool nor_erase(size_t offset, size_t size);

#endif
