/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <string.h>

#include "fm_wire_tables.h"

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

static void store(uint8_t *member, uint32_t value, uint32_t width) {
  const uint8_t byte = (uint8_t)value;
  const uint16_t half = (uint16_t)value;
  if (width == 1u) {
    (void)memcpy(member, &byte, sizeof byte);
  } else if (width == 2u) {
    (void)memcpy(member, &half, sizeof half);
  } else {
    (void)memcpy(member, &value, sizeof value);
  }
}

fm_status_t fmb_message_defaults(fm_message_t *message) {
  const uint8_t type = message->type;
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((type >= 1u) && (type <= FM_BODY_LAST)) {
    (void)memset(&message->body, 0, sizeof message->body);
    for (uint32_t i = fm_fields_start[type]; i < fm_fields_start[type + 1u]; i++) {
      const uint32_t form = (uint32_t)fm_fields[i] >> 8;
      if ((form & FM_FORM_OFFSET) == 0u) {
        store((uint8_t *)message + (fm_fields[i] & 0xFFu), fm_defaults[form >> 3], 1u << (form & 3u));
      }
    }
    status = FM_OK;
  }
  return status;
}
