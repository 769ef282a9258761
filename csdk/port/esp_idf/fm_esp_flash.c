/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_esp_flash.h"

#include <string.h>

#define PROGRAM_SIZE 4u
#define PROGRAM_SIZE_ENCRYPTED 16u

static fm_status_t flash_read_at(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  const fm_esp_flash_t *flash = (const fm_esp_flash_t *)user;
  return (esp_partition_read(flash->partition, offset, out, size) == ESP_OK) ? FM_OK : FM_ERR_STORAGE;
}

static fm_status_t flash_program_at(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  const fm_esp_flash_t *flash = (const fm_esp_flash_t *)user;
  return (esp_partition_write(flash->partition, offset, bytes, size) == ESP_OK) ? FM_OK : FM_ERR_STORAGE;
}

static fm_status_t flash_erase_at(void *user, uint32_t offset) {
  const fm_esp_flash_t *flash = (const fm_esp_flash_t *)user;
  const esp_partition_t *partition = flash->partition;
  return (esp_partition_erase_range(partition, offset, partition->erase_size) == ESP_OK) ? FM_OK : FM_ERR_STORAGE;
}

fm_status_t fm_esp_flash_init(fm_esp_flash_t *flash, const char *label, fm_storage_t *storage) {
  fm_status_t status = FM_ERR_STORAGE;
  (void)memset(storage, 0, sizeof *storage);
  flash->partition = esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, label);
  if (flash->partition != NULL) {
    storage->size = flash->partition->size;
    storage->erase_size = flash->partition->erase_size;
    storage->program_size = flash->partition->encrypted ? PROGRAM_SIZE_ENCRYPTED : PROGRAM_SIZE;
    storage->read = flash_read_at;
    storage->program = flash_program_at;
    storage->erase = flash_erase_at;
    storage->user = flash;
    status = FM_OK;
  }
  return status;
}
