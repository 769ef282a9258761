/* SPDX-License-Identifier: Apache-2.0 */
/* The server's door for messages: verified by the same code as on the device. */
#ifndef FMB_WIRE_H
#define FMB_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "fedmote/fm_codec.h"

/* The body's type of a valid message, 0 for anything else. */
int fmb_verify(const uint8_t *message, size_t size);

typedef struct {
  uint32_t round;
  uint32_t index;
  uint32_t data_offset; /* of the chunk's data in the message */
  uint32_t data_size;
  float scale;
} fmb_update_chunk_t;

/* As fmb_verify(); what an UpdateChunk says goes into *chunk. */
int fmb_read_update_chunk(const uint8_t *message, size_t size, fmb_update_chunk_t *chunk);

/* Give every scalar of the body `message->type` its default and empty the rest. FM_ERR_ARGUMENT: no such type. */
fm_status_t fmb_message_defaults(fm_message_t *message);

#endif
