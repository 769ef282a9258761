/* SPDX-License-Identifier: Apache-2.0 */
/* Verify the server's incoming messages with the same code as on the device. */
#ifndef FMB_WIRE_H
#define FMB_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "fedmote/fm_codec.h"

/* Return the body's type of a valid message, 0 for anything else. */
int fmb_verify(const uint8_t *message, size_t size);

typedef struct {
  uint32_t round;
  uint32_t index;
  uint32_t data_offset; /* of the chunk's data in the message */
  uint32_t data_size;
  float scale;
} fmb_update_chunk_t;

/* As fmb_verify(). The fields of an UpdateChunk are written to *chunk. */
int fmb_read_update_chunk(const uint8_t *message, size_t size, fmb_update_chunk_t *chunk);

/* Set every scalar of the body `message->type` to its default and the rest to 0. FM_ERR_ARGUMENT: no such type. */
fm_status_t fmb_message_defaults(fm_message_t *message);

#endif
