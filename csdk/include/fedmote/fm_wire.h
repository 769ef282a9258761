/* SPDX-License-Identifier: Apache-2.0 */
/* Generated from schema/fedmote.fbs by csdk/tools/generate_codec.py. Do not edit. */

#ifndef FM_WIRE_H
#define FM_WIRE_H

#include <stdbool.h>
#include <stdint.h>

/* A string or vector inside a message: `size` bytes, without a string's terminator. Ends with the buffer it points
 * into. */
typedef struct {
  const uint8_t *data;
  uint32_t size;
} fm_bytes_t;

/* fm_message_t.type */
enum {
  FM_BODY_NONE = 0,
  FM_BODY_HELLO = 1,
  FM_BODY_WELCOME = 2,
  FM_BODY_REFUSAL = 3,
  FM_BODY_PLAN = 4,
  FM_BODY_WITHDRAW = 5,
  FM_BODY_MODEL_CHUNK = 6,
  FM_BODY_CHUNK_REQUEST = 7,
  FM_BODY_UPDATE_BEGIN = 8,
  FM_BODY_UPDATE_CHUNK = 9,
  FM_BODY_UPDATE_END = 10,
  FM_BODY_UPDATE_STATUS = 11,
  FM_BODY_PROGRESS = 12,
  FM_BODY_CLOSING_NOTICE = 13,
  FM_BODY_RECEIPT = 14,
  FM_BODY_COMMIT = 15,
  FM_BODY_DEVICE_STATE = 16,
  FM_BODY_EVALUATION = 17,
  FM_BODY_ANSWER = 18,
};

enum {
  FM_ENCODING_FLOAT32 = 0,
  FM_ENCODING_FLOAT16 = 1,
  FM_ENCODING_INT8 = 2,
  FM_ENCODING_TOP_K = 3,
};

enum {
  FM_REFUSAL_REASON_PROTOCOL = 0,
  FM_REFUSAL_REASON_IDENTITY = 1,
  FM_REFUSAL_REASON_LAYOUT = 2,
  FM_REFUSAL_REASON_MALFORMED = 3,
  FM_REFUSAL_REASON_NON_FINITE = 4,
  FM_REFUSAL_REASON_CHECKSUM = 5,
  FM_REFUSAL_REASON_CLOSED = 6,
  FM_REFUSAL_REASON_NOT_PLANNED = 7,
  FM_REFUSAL_REASON_TOO_LARGE = 8,
};

enum {
  FM_SLOT_STATE_GRANTED = 0,
  FM_SLOT_STATE_WAIT = 1,
  FM_SLOT_STATE_MISSING = 2,
};

enum {
  FM_TASK_FIT = 0,
  FM_TASK_EVALUATE = 1,
  FM_TASK_QUERY = 2,
};

enum {
  FM_UPDATE_KIND_WEIGHTS = 0,
  FM_UPDATE_KIND_DELTA = 1,
};

enum {
  FM_WITHDRAW_REASON_APPLICATION = 0,
  FM_WITHDRAW_REASON_BATTERY = 1,
  FM_WITHDRAW_REASON_METERED = 2,
  FM_WITHDRAW_REASON_BUSY = 3,
  FM_WITHDRAW_REASON_NO_TIME = 4,
  FM_WITHDRAW_REASON_TRAINING_FAILED = 5,
};

typedef struct {
  uint32_t first;
  uint32_t count;
} fm_range_t;

typedef struct {
  fm_bytes_t device_id;
  uint8_t protocol_min;
  uint8_t protocol_max;
  uint32_t boot;
  uint32_t library_version;
  uint32_t elements;
  uint32_t layout_crc32;
  uint32_t examples;
  uint8_t encodings;
  uint8_t kinds;
  uint32_t model_version;
  uint32_t model_crc32;
  uint32_t held_round;
  uint32_t held_crc32;
  uint8_t battery;
  uint8_t flags;
  uint32_t free_memory_kib;
} fm_hello_t;

typedef struct {
  uint8_t protocol;
  uint32_t boot;
  uint32_t open_round;
  uint32_t come_back_ms;
} fm_welcome_t;

typedef struct {
  uint8_t reason;
  uint32_t round;
  uint32_t retry_after_ms;
  fm_bytes_t detail;
} fm_refusal_t;

typedef struct {
  uint32_t round;
  uint8_t task;
  uint32_t model_version;
  uint32_t model_elements;
  uint32_t model_crc32;
  uint32_t model_chunk_elements;
  uint32_t update_chunk_elements;
  uint8_t encodings;
  uint8_t kinds;
  bool partial_allowed;
  bool slot_granted;
  uint16_t epochs;
  uint16_t batch_size;
  uint32_t max_steps;
  float learning_rate;
  float prox_mu;
  uint32_t seed;
  uint32_t soft_deadline_ms;
  uint32_t hard_deadline_ms;
  uint32_t query_field;
  float query_low;
  float query_high;
  uint8_t query_bins;
} fm_plan_t;

typedef struct {
  uint32_t round;
  uint8_t reason;
} fm_withdraw_t;

typedef struct {
  uint32_t version;
  uint32_t index;
  fm_bytes_t data;
} fm_model_chunk_t;

typedef struct {
  uint32_t version;
  uint32_t index;
} fm_chunk_request_t;

typedef struct {
  uint32_t round;
  uint32_t base_version;
  uint32_t crc32;
  uint32_t elements;
  uint32_t chunk_elements;
  uint8_t encoding;
  uint8_t kind;
  uint32_t examples;
  uint32_t steps;
  uint32_t planned_steps;
  float loss;
  fm_bytes_t ranges;
  uint32_t base_crc32;
} fm_update_begin_t;

typedef struct {
  uint32_t round;
  uint32_t index;
  float scale;
  fm_bytes_t data;
} fm_update_chunk_t;

typedef struct {
  uint32_t round;
  uint32_t chunks;
  uint32_t crc32;
} fm_update_end_t;

typedef struct {
  uint32_t round;
  uint32_t crc32;
  uint8_t state;
  uint32_t retry_after_ms;
  uint32_t first;
  fm_bytes_t received;
} fm_update_status_t;

typedef struct {
  uint32_t round;
  uint32_t steps;
  uint32_t planned_steps;
  uint32_t examples;
  float loss;
} fm_progress_t;

typedef struct {
  uint32_t round;
  uint32_t remaining_ms;
} fm_closing_notice_t;

typedef struct {
  uint32_t round;
  uint32_t crc32;
} fm_receipt_t;

typedef struct {
  uint32_t round;
  uint32_t model_version;
} fm_commit_t;

typedef struct {
  bool online;
  uint8_t battery;
  uint8_t flags;
} fm_device_state_t;

typedef struct {
  uint32_t round;
  uint32_t model_version;
  uint32_t examples;
  uint32_t correct;
  float loss;
  uint32_t seed;
} fm_evaluation_t;

typedef struct {
  uint32_t round;
  uint32_t seed;
  uint32_t count;
  float sum;
  fm_bytes_t counts;
} fm_answer_t;

typedef struct {
  uint8_t type;         /* FM_BODY_* */
  uint32_t bulk_offset; /* decoded: where in the message its bulk data starts; 0: it has none */
  union {
    fm_hello_t hello;
    fm_welcome_t welcome;
    fm_refusal_t refusal;
    fm_plan_t plan;
    fm_withdraw_t withdraw;
    fm_model_chunk_t model_chunk;
    fm_chunk_request_t chunk_request;
    fm_update_begin_t update_begin;
    fm_update_chunk_t update_chunk;
    fm_update_end_t update_end;
    fm_update_status_t update_status;
    fm_progress_t progress;
    fm_closing_notice_t closing_notice;
    fm_receipt_t receipt;
    fm_commit_t commit;
    fm_device_state_t device_state;
    fm_evaluation_t evaluation;
    fm_answer_t answer;
  } body;
} fm_message_t;

#endif
