/* SPDX-License-Identifier: Apache-2.0 */
/* NOR flash in RAM, for boards that have none: programming only clears bits, erasing a block sets them. */
#ifndef NOR_RAM_H
#define NOR_RAM_H

#include <stdint.h>

#include "fedmote/fm_keep.h"

#define NOR_BLOCK 4096u

/* Fill in *storage over `size` bytes at `memory`, whole blocks. */
void nor_ram_init(fm_storage_t *storage, uint8_t *memory, uint32_t size);

#endif
