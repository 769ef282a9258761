/* SPDX-License-Identifier: Apache-2.0 */
/* A partition of ESP-IDF's partition table as storage for fm_keep. */
#ifndef FM_ESP_FLASH_H
#define FM_ESP_FLASH_H

#include "esp_partition.h"
#include "fedmote/fm_keep.h"

typedef struct {
  const esp_partition_t *partition;
} fm_esp_flash_t;

/* Find the data partition with this label and describe it in *storage. FM_ERR_STORAGE: there is none. */
fm_status_t fm_esp_flash_init(fm_esp_flash_t *flash, const char *label, fm_storage_t *storage);

#endif
