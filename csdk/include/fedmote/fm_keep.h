/* SPDX-License-Identifier: Apache-2.0 */
/* Keep model, job and update over a reset, in flash (or EEPROM, FRAM). Safe against a power cut at any moment.
 *
 * Use: describe the storage in an fm_storage_t and have fm_keep_init() fill fm_client_config_t.keeper before
 * fm_client_init(). After a reset, fm_client_init() restores what was kept: a download resumes after its last durable
 * chunk, a finished update is offered again, interrupted training starts over from the model, and a model is kept after
 * its round. The application itself must keep local tensors.
 *
 * Layout: two halves of a journal, used in turn, then the model's area, then the update's area, each in whole erase
 * blocks. Data is programmed before the record that declares it durable. A half is valid only once its header is
 * programmed.
 */
#ifndef FM_KEEP_H
#define FM_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_client.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The caller's raw storage. No function is called from an interrupt. Each may block for no longer than the application
 * can do without fm_client_poll(). Any result but FM_OK is a failure and is counted. */
typedef struct {
  uint32_t size;         /* bytes, a multiple of erase_size; see fm_keep_size() */
  uint32_t erase_size;   /* bytes of a block, 16 to 2^20, a multiple of program_size */
  uint32_t program_size; /* bytes programmed at once: 1, 2, 4, 8, 16 or 32 */
  /* A word that error correction cannot repair must return a failure, not trap: a power cut may leave such words. */
  fm_status_t (*read)(void *user, uint32_t offset, uint8_t *out, uint32_t size);
  /* Program blank bytes, each at most once between two erases; offset and size are multiples of program_size. */
  fm_status_t (*program)(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size);
  /* Erase the block that starts at `offset`; it then reads 0xFF. (If erased flash reads 0x00, invert all bytes.) */
  fm_status_t (*erase)(void *user, uint32_t offset);
  void *user;
} fm_storage_t;

/* One keeper. Public so that its size is known; read `errors` and the counters, touch nothing else. */
typedef struct {
  const fm_storage_t *storage;
  uint32_t half_size;  /* of the journal */
  uint32_t half;       /* in use: offset of its first byte */
  uint32_t generation; /* of the half in use; 0: none yet */
  uint32_t end;        /* where the half's next record goes; half_size when nothing more may be appended */
  uint32_t identity;   /* of the firmware and model that wrote this journal: see identity() in fm_keep.c */
  uint32_t records[4]; /* offset within the half of the newest record of each type; 0: none */
  uint32_t area_size;  /* of the model, and of the update */
  uint32_t stride;     /* bytes of storage that one model chunk takes */
  uint32_t chunks;     /* programmed, of the model named in the newest job */
  uint32_t crc32;      /* of their data, up to `cursor` */
  uint32_t cursor;     /* bytes programmed in the area being written */
  bool saving_update;  /* true: that area is the update's; false: the model's */
  uint32_t errors;   /* failures of the storage, and data that read back wrong; what they concern is lost at a reset */
  uint32_t restored; /* chunks, or an update, restored at the start */
} fm_keep_t;

/* Return the bytes of storage, in whole erase blocks, for a model of `elements` in chunks of at least
 * `least_chunk_elements`. 0: `storage` has an erase or program size out of range. */
uint32_t fm_keep_size(const fm_storage_t *storage, uint32_t elements, uint32_t least_chunk_elements);

/* Fill in *keeper for fm_client_config_t. Keeps the pointer to `storage`; reads nothing yet. FM_ERR_ARGUMENT: a missing
 * function or a size out of range. FM_ERR_BUFFER: too small for any model. A model or chunk size that does not fit is
 * counted in `errors` when its plan arrives; the client then works without keeping it. */
fm_status_t fm_keep_init(fm_keep_t *keep, const fm_storage_t *storage, fm_keeper_t *keeper);

#ifdef __cplusplus
}
#endif

#endif
