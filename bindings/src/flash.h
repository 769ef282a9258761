/* SPDX-License-Identifier: Apache-2.0 */
/* NOR flash in memory whose power fails on demand. fm_keep.h writes to it, in virtual devices and in tests. */
#ifndef FMB_FLASH_H
#define FMB_FLASH_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_keep.h"

/* How much the operation during which the power fails still does. */
typedef enum {
  FMB_CUT_BEFORE = 0, /* nothing */
  FMB_CUT_HALF,       /* half of its bytes */
  FMB_CUT_GARBAGE,    /* half of its bytes, and every other bit of the next one */
  FMB_CUT_AFTER       /* all of it */
} fmb_cut_t;

/* The bytes are the caller's and outlive the device. */
typedef struct {
  uint8_t *bytes;
  uint32_t size;
  uint32_t erase_size;
  uint32_t program_size;
  uint32_t operations; /* programs and erases so far */
  uint32_t cut_at;     /* number of the operation during which the power fails; 0: never */
  uint32_t cut_how;    /* fmb_cut_t */
  bool off;            /* the power has failed: nothing more is written, and the caller discards the device */
  uint32_t misused; /* number of bytes programmed that were not blank, and of accesses out of bounds or not aligned */
} fmb_flash_t;

/* Fill in *storage, whose user is `flash`. */
void fmb_flash_storage(fmb_flash_t *flash, fm_storage_t *storage);

#endif
