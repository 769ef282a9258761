/* SPDX-License-Identifier: Apache-2.0 */
/* A device's memory over a reset: model, job and update in flash (or EEPROM, FRAM), safe against a power cut at any
 * moment.
 *
 * Use: describe the storage in an fm_storage_t, fm_keep_init() fills fm_client_config_t.keeper before
 * fm_client_init(), which then finds what was kept: a download goes on behind its last durable chunk, a finished update
 * is offered again as it was, a training that was cut off starts over from the model, and a model outlives its round.
 * Local tensors are the application's own to keep.
 *
 * Layout: two halves of a journal, used in turn, then room for the model, then room for the update, each in whole
 * erase blocks. What a record says is durable was programmed before it, and a half counts only once its header is in.
 */
#ifndef FM_KEEP_H
#define FM_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_client.h"

/* Raw storage of the caller's. Nothing of it is read from an interrupt; each function blocks for no longer than the
 * application can do without poll. Any result but FM_OK is a failure, and is counted. */
typedef struct {
  uint32_t size;         /* bytes, a multiple of erase_size; see fm_keep_size() */
  uint32_t erase_size;   /* bytes of a block, 16 to 2^20, a multiple of program_size */
  uint32_t program_size; /* bytes programmed at once: 1, 2, 4, 8, 16 or 32 */
  /* A word that error correction cannot mend is a failure, not a trap: a power cut may leave some. */
  fm_status_t (*read)(void *user, uint32_t offset, uint8_t *out, uint32_t size);
  /* Program blank bytes, each at most once between two erases; offset and size are multiples of program_size. */
  fm_status_t (*program)(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size);
  /* Make the block that starts at `offset` read 0xFF. (Flash that is 0x00 then: invert all bytes on the way.) */
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
  uint32_t identity;   /* of what firmware and model this journal is: see identity() in fm_keep.c */
  uint32_t records[4]; /* offset within the half of the newest record of each type; 0: none */
  uint32_t area_size;  /* of the model, and of the update */
  uint32_t stride;     /* bytes of storage that one model chunk takes */
  uint32_t chunks;     /* programmed, of the model named in the newest job */
  uint32_t crc32;      /* of their data, up to `cursor` */
  uint32_t cursor;     /* bytes programmed in the area being written */
  bool saving_update;  /* which area that is */
  uint32_t errors;     /* failures of the storage, and data that came back wrong: lost at a reset, and nothing else */
  uint32_t restored;   /* chunks, or an update, found at the start */
} fm_keep_t;

/* Bytes of storage that a model of `elements` needs in chunks of at least `least_chunk_elements`, whole erase blocks.
 * 0: `storage` has an erase or program size out of range. */
uint32_t fm_keep_size(const fm_storage_t *storage, uint32_t elements, uint32_t least_chunk_elements);

/* Fill in *keeper for fm_client_config_t. Keeps the pointer to `storage`; reads nothing yet. FM_ERR_ARGUMENT: a missing
 * function or a size out of range. FM_ERR_BUFFER: too small for any model. A model or chunk size that does not fit is
 * counted in `errors` when its plan comes, and is worked on without being kept. */
fm_status_t fm_keep_init(fm_keep_t *keep, const fm_storage_t *storage, fm_keeper_t *keeper);

#endif
