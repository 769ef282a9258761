/* SPDX-License-Identifier: Apache-2.0 */
#include "flash.h"

#include <string.h>

#define PAGE 1024u
#define WORD 4u

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define NVMC_READY REGISTER(0x4001E400u)
#define NVMC_CONFIG REGISTER(0x4001E504u)
#define NVMC_ERASE_PAGE REGISTER(0x4001E508u)
#define NVMC_READ_ONLY 0u
#define NVMC_WRITE 1u
#define NVMC_ERASE 2u

extern uint8_t __storage_start[];
extern uint8_t __storage_end[];

static void allow(uint32_t access) {
  NVMC_CONFIG = access;
  while (NVMC_READY == 0u) {
  }
}

static fm_status_t flash_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  (void)user;
  (void)memcpy(out, &__storage_start[offset], size);
  return FM_OK;
}

static fm_status_t flash_program(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  (void)user;
  allow(NVMC_WRITE);
  for (uint32_t at = 0u; at < size; at += WORD) {
    uint32_t word;
    (void)memcpy(&word, &bytes[at], sizeof word); /* the core has no unaligned reads */
    REGISTER((uintptr_t)&__storage_start[offset + at]) = word;
    while (NVMC_READY == 0u) {
    }
  }
  allow(NVMC_READ_ONLY);
  return FM_OK;
}

static fm_status_t flash_erase(void *user, uint32_t offset) {
  (void)user;
  allow(NVMC_ERASE);
  NVMC_ERASE_PAGE = (uintptr_t)&__storage_start[offset];
  allow(NVMC_READ_ONLY);
  return FM_OK;
}

void flash_init(fm_storage_t *storage) {
  storage->size = (uint32_t)((uintptr_t)__storage_end - (uintptr_t)__storage_start);
  storage->erase_size = PAGE;
  storage->program_size = WORD;
  storage->read = flash_read;
  storage->program = flash_program;
  storage->erase = flash_erase;
  storage->user = NULL;
}
