/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold of any bytes given to the decoder, and of any message it accepts. Whatever does not hold aborts. */
#ifndef MESSAGE_CHECK_H
#define MESSAGE_CHECK_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedmote/fm_codec.h"

#define HOLDS(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

typedef enum { VIEW_STRING, VIEW_REQUIRED_STRING, VIEW_VECTOR, VIEW_BULK } view_kind_t;

typedef struct {
  uint8_t type;
  view_kind_t kind;
  size_t offset; /* in fm_message_t */
} view_place_t;

/* Every fm_bytes_t of fm_wire.h. */
#define VIEW(type, kind, member)                                                                                       \
  { type, kind, offsetof(fm_message_t, body.member) }
static const view_place_t view_places[] = {
    VIEW(FM_BODY_HELLO, VIEW_REQUIRED_STRING, hello.device_id),
    VIEW(FM_BODY_REFUSAL, VIEW_STRING, refusal.detail),
    VIEW(FM_BODY_MODEL_CHUNK, VIEW_BULK, model_chunk.data),
    VIEW(FM_BODY_UPDATE_BEGIN, VIEW_VECTOR, update_begin.ranges),
    VIEW(FM_BODY_UPDATE_CHUNK, VIEW_BULK, update_chunk.data),
    VIEW(FM_BODY_UPDATE_STATUS, VIEW_VECTOR, update_status.received),
    VIEW(FM_BODY_ANSWER, VIEW_VECTOR, answer.counts),
};
#define VIEW_PLACES (sizeof view_places / sizeof view_places[0])

static fm_bytes_t *view_at(fm_message_t *message, const view_place_t *place) {
  return (fm_bytes_t *)(void *)((uint8_t *)message + place->offset);
}

/* What is there of a view lies in the message and can be read; of all but bulk data, everything is there. */
static void view_holds(const uint8_t *bytes, uint32_t available, uint32_t total, const fm_message_t *message,
                       const view_place_t *place, fm_bytes_t view) {
  static volatile uint8_t sink;
  const uint32_t end = (place->kind == VIEW_BULK) ? total : available;
  const uint32_t terminator = (place->kind <= VIEW_REQUIRED_STRING) ? 1u : 0u;
  if (view.data != NULL) {
    const size_t at = (size_t)(view.data - bytes);
    HOLDS((view.data >= bytes) && (at <= end) && ((view.size + terminator) <= (end - at)));
    HOLDS((terminator == 0u) || (view.data[view.size] == 0u));
    for (size_t i = 0u; (i < view.size) && ((at + i) < available); i++) {
      sink = (uint8_t)(sink ^ view.data[i]);
    }
    HOLDS((place->kind != VIEW_BULK) || (at == message->bulk_offset));
  } else {
    HOLDS(view.size == 0u);
  }
}

/* Scalars and the contents of views are the same; of bulk data, the size. */
static void same_message(const fm_message_t *left, const fm_message_t *right) {
  fm_message_t a = *left;
  fm_message_t b = *right;
  for (size_t i = 0u; i < VIEW_PLACES; i++) {
    if (view_places[i].type == a.type) {
      fm_bytes_t *of_a = view_at(&a, &view_places[i]);
      fm_bytes_t *of_b = view_at(&b, &view_places[i]);
      HOLDS(of_a->size == of_b->size);
      HOLDS((view_places[i].kind == VIEW_BULK) || (of_a->size == 0u) ||
            (memcmp(of_a->data, of_b->data, of_a->size) == 0));
      (void)memset(of_a, 0, sizeof *of_a); /* with its padding, which may be anything */
      (void)memset(of_b, 0, sizeof *of_b);
    }
  }
  a.bulk_offset = 0u;
  b.bulk_offset = 0u;
  HOLDS(memcmp(&a, &b, sizeof a) == 0);
}

/* The message can be written, into just the bytes it says it takes, and says the same when it is read again. */
static void encodes_again(const fm_message_t *message, uint32_t bulk_size, bool complete) {
  uint32_t size = 0u;
  uint32_t written = 0u;
  uint8_t *out;
  const fm_status_t status = fm_message_encode(message, NULL, 0u, &size);
  HOLDS(status == (complete ? FM_OK : FM_ERR_ARGUMENT));
  if (complete) {
    fm_message_t again;
    HOLDS((message->bulk_offset == 0u) || (size < 128u));
    out = malloc(size);
    HOLDS(out != NULL);
    HOLDS(fm_message_encode(message, out, size - 1u, &written) == FM_ERR_BUFFER);
    HOLDS((fm_message_encode(message, out, size, &written) == FM_OK) && (written == size));
    (void)memset(&again, 0xA5, sizeof again);
    HOLDS(fm_message_decode(out, size, size + bulk_size, &again) == FM_OK);
    same_message(message, &again);
    free(out);
  }
}

/* Elements of the ranges are read where they are, at any alignment. */
static void ranges_hold(fm_bytes_t ranges) {
  HOLDS((ranges.size % 8u) == 0u);
  for (uint32_t i = 0u; i < (ranges.size / 8u); i++) {
    const fm_range_t range = fm_range_at(ranges, i);
    HOLDS((uint8_t)range.first == ranges.data[8u * i]);
    HOLDS((uint8_t)(range.count >> 24) == ranges.data[(8u * i) + 7u]);
  }
}

/* Decode `available` bytes of a message of `total`, and check whatever was accepted. The bytes are best the whole of an
 * allocation, so that the sanitizer sees a read past them. */
static fm_status_t check_message(const uint8_t *bytes, uint32_t available, uint32_t total) {
  fm_message_t message;
  fm_status_t status;
  (void)memset(&message, 0xA5, sizeof message); /* padding is then the same wherever two are compared */
  status = fm_message_decode(bytes, available, total, &message);
  HOLDS((status == FM_OK) || (status == FM_ERR_MESSAGE) || ((status == FM_AGAIN) && (available < total)));
  if (status == FM_OK) {
    uint32_t bulk_size = 0u;
    bool complete = true;
    HOLDS(message.bulk_offset <= available);
    for (size_t i = 0u; i < VIEW_PLACES; i++) {
      if (view_places[i].type == message.type) {
        const fm_bytes_t view = *view_at(&message, &view_places[i]);
        view_holds(bytes, available, total, &message, &view_places[i], view);
        bulk_size = (view_places[i].kind == VIEW_BULK) ? view.size : bulk_size;
        complete = complete && ((view_places[i].kind != VIEW_REQUIRED_STRING) || (view.size != 0u));
      }
    }
    if (message.type == FM_BODY_UPDATE_BEGIN) {
      ranges_hold(message.body.update_begin.ranges);
    }
    encodes_again(&message, bulk_size, complete);
  }
  return status;
}

#endif
