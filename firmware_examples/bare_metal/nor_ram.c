/* SPDX-License-Identifier: Apache-2.0 */
#include "nor_ram.h"

#include <string.h>

static fm_status_t nor_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  const uint8_t *memory = (const uint8_t *)user;
  (void)memcpy(out, &memory[offset], size);
  return FM_OK;
}

static fm_status_t nor_program(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  uint8_t *memory = (uint8_t *)user;
  for (uint32_t i = 0u; i < size; i++) {
    memory[offset + i] &= bytes[i];
  }
  return FM_OK;
}

static fm_status_t nor_erase(void *user, uint32_t offset) {
  uint8_t *memory = (uint8_t *)user;
  (void)memset(&memory[offset], 0xFF, NOR_BLOCK);
  return FM_OK;
}

void nor_ram_init(fm_storage_t *storage, uint8_t *memory, uint32_t size) {
  storage->size = size;
  storage->erase_size = NOR_BLOCK;
  storage->program_size = 1u;
  storage->read = nor_read;
  storage->program = nor_program;
  storage->erase = nor_erase;
  storage->user = memory;
}
