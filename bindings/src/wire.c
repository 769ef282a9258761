/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include "fedmote/fm_codec.h"

static int decode(const uint8_t *bytes, size_t size, fm_message_t *message) {
  const uint32_t total = (size <= UINT32_MAX) ? (uint32_t)size : 0u;
  return (fm_message_decode(bytes, total, total, message) == FM_OK) ? (int)message->type : 0;
}

int fmb_verify(const uint8_t *message, size_t size) {
  fm_message_t decoded;
  return decode(message, size, &decoded);
}

int fmb_read_update_chunk(const uint8_t *message, size_t size, fmb_update_chunk_t *chunk) {
  fm_message_t decoded;
  const int type = decode(message, size, &decoded);
  if (type == FM_BODY_UPDATE_CHUNK) {
    const fm_update_chunk_t *body = &decoded.body.update_chunk;
    chunk->round = body->round;
    chunk->index = body->index;
    chunk->scale = body->scale;
    chunk->data_offset = decoded.bulk_offset;
    chunk->data_size = body->data.size;
  }
  return type;
}
