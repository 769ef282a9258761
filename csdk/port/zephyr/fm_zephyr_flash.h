/* SPDX-License-Identifier: Apache-2.0 */
/* A partition of Zephyr's flash map as storage for fm_keep. */
#ifndef FM_ZEPHYR_FLASH_H
#define FM_ZEPHYR_FLASH_H

#include "fedmote/fm_keep.h"

struct flash_area;

typedef struct {
  const struct flash_area *area;
  uint32_t page_size;
} fm_zephyr_flash_t;

/* Open partition `id`, FIXED_PARTITION_ID(...), and describe it in *storage. Its pages must be of one size.
 * FM_ERR_STORAGE: there is no such partition or no driver for it, or erased flash does not read 0xFF. */
fm_status_t fm_zephyr_flash_init(fm_zephyr_flash_t *flash, uint8_t id, fm_storage_t *storage);

#endif
