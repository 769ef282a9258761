/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_zephyr_flash.h"

#include <string.h>
#include <zephyr/drivers/flash.h>
#include <zephyr/storage/flash_map.h>

static fm_status_t flash_read_at(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  const fm_zephyr_flash_t *flash = (const fm_zephyr_flash_t *)user;
  return (flash_area_read(flash->area, (off_t)offset, out, size) == 0) ? FM_OK : FM_ERR_STORAGE;
}

static fm_status_t flash_program_at(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  const fm_zephyr_flash_t *flash = (const fm_zephyr_flash_t *)user;
  return (flash_area_write(flash->area, (off_t)offset, bytes, size) == 0) ? FM_OK : FM_ERR_STORAGE;
}

static fm_status_t flash_erase_at(void *user, uint32_t offset) {
  const fm_zephyr_flash_t *flash = (const fm_zephyr_flash_t *)user;
  return (flash_area_erase(flash->area, (off_t)offset, flash->page_size) == 0) ? FM_OK : FM_ERR_STORAGE;
}

fm_status_t fm_zephyr_flash_init(fm_zephyr_flash_t *flash, uint8_t id, fm_storage_t *storage) {
  struct flash_pages_info page;
  fm_status_t status = FM_ERR_STORAGE;
  (void)memset(storage, 0, sizeof *storage);
  if ((flash_area_open(id, &flash->area) == 0) && (flash_area_erased_val(flash->area) == 0xFFu) &&
      (flash_get_page_info_by_offs(flash_area_get_device(flash->area), flash->area->fa_off, &page) == 0)) {
    storage->size = (uint32_t)flash->area->fa_size;
    flash->page_size = (uint32_t)page.size;
    storage->erase_size = flash->page_size;
    storage->program_size = flash_area_align(flash->area);
    storage->read = flash_read_at;
    storage->program = flash_program_at;
    storage->erase = flash_erase_at;
    storage->user = flash;
    status = FM_OK;
  }
  return status;
}
