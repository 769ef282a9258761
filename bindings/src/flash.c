/* SPDX-License-Identifier: Apache-2.0 */
#include "flash.h"

#include <string.h>

#define BLANK 0xFFu

static bool inside(fmb_flash_t *flash, uint32_t offset, uint32_t size, uint32_t unit) {
  const bool is =
      (offset <= flash->size) && (size <= (flash->size - offset)) && ((offset % unit) == 0u) && ((size % unit) == 0u);
  flash->misused += is ? 0u : 1u;
  return is;
}

/* Return how many of `size` bytes this operation writes. The bits that the next byte keeps are set in *mask. */
static uint32_t writable_bytes(fmb_flash_t *flash, uint32_t size, uint8_t *mask) {
  uint32_t count = flash->off ? 0u : size;
  *mask = BLANK;
  flash->operations++;
  if (!flash->off && (flash->operations == flash->cut_at)) {
    flash->off = true;
    if (flash->cut_how == FMB_CUT_BEFORE) {
      count = 0u;
    } else if (flash->cut_how != FMB_CUT_AFTER) {
      count = size / 2u;
      *mask = (flash->cut_how == FMB_CUT_GARBAGE) ? 0x55u : BLANK;
    }
  }
  return count;
}

static fm_status_t flash_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  fmb_flash_t *flash = user;
  fm_status_t status = FM_ERR_STORAGE;
  if (inside(flash, offset, size, 1u)) {
    (void)memcpy(out, &flash->bytes[offset], size);
    status = FM_OK;
  }
  return status;
}

static fm_status_t flash_program(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  fmb_flash_t *flash = user;
  fm_status_t status = FM_ERR_STORAGE;
  if (inside(flash, offset, size, flash->program_size)) {
    uint8_t mask;
    const uint32_t count = writable_bytes(flash, size, &mask);
    for (uint32_t i = 0u; i < count; i++) {
      flash->misused += (flash->bytes[offset + i] != BLANK) ? 1u : 0u;
      flash->bytes[offset + i] &= bytes[i];
    }
    if ((count < size) && (mask != BLANK)) {
      flash->bytes[offset + count] &= (uint8_t)(bytes[count] | mask);
    }
    status = flash->off ? FM_ERR_STORAGE : FM_OK;
  }
  return status;
}

static fm_status_t flash_erase(void *user, uint32_t offset) {
  fmb_flash_t *flash = user;
  fm_status_t status = FM_ERR_STORAGE;
  if (inside(flash, offset, flash->erase_size, flash->erase_size)) {
    uint8_t mask;
    const uint32_t count = writable_bytes(flash, flash->erase_size, &mask);
    (void)memset(&flash->bytes[offset], BLANK, count);
    if ((count < flash->erase_size) && (mask != BLANK)) {
      flash->bytes[offset + count] |= mask;
    }
    status = flash->off ? FM_ERR_STORAGE : FM_OK;
  }
  return status;
}

void fmb_flash_storage(fmb_flash_t *flash, fm_storage_t *storage) {
  storage->size = flash->size;
  storage->erase_size = flash->erase_size;
  storage->program_size = flash->program_size;
  storage->read = flash_read;
  storage->program = flash_program;
  storage->erase = flash_erase;
  storage->user = flash;
}
