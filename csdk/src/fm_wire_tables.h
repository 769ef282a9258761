/* SPDX-License-Identifier: Apache-2.0 */
/* Generated from schema/fedmote.fbs by csdk/tools/generate_codec.py. Do not edit. */

#ifndef FM_WIRE_TABLES_H
#define FM_WIRE_TABLES_H

#include <stddef.h>

#include "fedmote/fm_wire.h"

/* fm_field_t.kind: the size of a scalar, or what an offset leads to. */
#define FM_KIND_U8 1u
#define FM_KIND_U16 2u
#define FM_KIND_U32 4u
#define FM_KIND_VECTOR 8u
#define FM_KIND_STRING 9u
#define FM_KIND_BULK 10u
#define FM_KIND_OFFSET 8u /* this bit is set in all kinds that are offsets */
#define FM_KIND_REQUIRED 0x80u

typedef struct {
  uint8_t kind;
  uint8_t extra;         /* scalar: values are below this (0: any); vector: bytes of an element */
  uint8_t default_index; /* of fm_defaults, the value when the field is absent */
  uint8_t offset;        /* of the member in its struct */
} fm_field_t;

#define FM_BODY_LAST 17u
#define FM_FIELDS_MOST 19u

static const uint8_t fm_identifier[4] = {0x46u, 0x4Du, 0x4Fu, 0x31u};

static const uint32_t fm_defaults[] = {0x0u, 0x1u, 0x20u, 0xFFu, 0x3DCCCCCDu, 0x3F800000u};

/* The fields of body b are [fm_fields_start[b - 1], fm_fields_start[b]). */
static const uint8_t fm_fields_start[] = {0u,  16u, 20u, 24u, 43u, 45u, 48u, 50u, 62u,
                                          66u, 69u, 75u, 80u, 82u, 84u, 86u, 89u, 94u};

static const fm_field_t fm_fields[] = {
    {FM_KIND_STRING | FM_KIND_REQUIRED, 1u, 0u, (uint8_t)offsetof(fm_hello_t, device_id)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_hello_t, protocol_min)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_hello_t, protocol_max)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, boot)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, library_version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, elements)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, layout_crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, examples)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_hello_t, encodings)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_hello_t, kinds)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, model_version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, model_crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, held_round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_hello_t, held_crc32)},
    {FM_KIND_U8, 0u, 3u, (uint8_t)offsetof(fm_hello_t, battery)},
    {FM_KIND_U8, 0u, 0u, (uint8_t)offsetof(fm_hello_t, flags)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_welcome_t, protocol)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_welcome_t, boot)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_welcome_t, open_round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_welcome_t, come_back_ms)},
    {FM_KIND_U8, 9u, 0u, (uint8_t)offsetof(fm_refusal_t, reason)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_refusal_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_refusal_t, retry_after_ms)},
    {FM_KIND_STRING, 1u, 0u, (uint8_t)offsetof(fm_refusal_t, detail)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, round)},
    {FM_KIND_U8, 3u, 0u, (uint8_t)offsetof(fm_plan_t, task)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, model_version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, model_elements)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, model_crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, model_chunk_elements)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, update_chunk_elements)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_plan_t, encodings)},
    {FM_KIND_U8, 0u, 1u, (uint8_t)offsetof(fm_plan_t, kinds)},
    {FM_KIND_U8, 2u, 1u, (uint8_t)offsetof(fm_plan_t, partial_allowed)},
    {FM_KIND_U8, 2u, 0u, (uint8_t)offsetof(fm_plan_t, slot_granted)},
    {FM_KIND_U16, 0u, 1u, (uint8_t)offsetof(fm_plan_t, epochs)},
    {FM_KIND_U16, 0u, 2u, (uint8_t)offsetof(fm_plan_t, batch_size)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, max_steps)},
    {FM_KIND_U32, 0u, 4u, (uint8_t)offsetof(fm_plan_t, learning_rate)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, prox_mu)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, seed)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, soft_deadline_ms)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_plan_t, hard_deadline_ms)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_withdraw_t, round)},
    {FM_KIND_U8, 6u, 0u, (uint8_t)offsetof(fm_withdraw_t, reason)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_model_chunk_t, version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_model_chunk_t, index)},
    {FM_KIND_BULK, 1u, 0u, (uint8_t)offsetof(fm_model_chunk_t, data)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_chunk_request_t, version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_chunk_request_t, index)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, base_version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, elements)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, chunk_elements)},
    {FM_KIND_U8, 4u, 0u, (uint8_t)offsetof(fm_update_begin_t, encoding)},
    {FM_KIND_U8, 2u, 0u, (uint8_t)offsetof(fm_update_begin_t, kind)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, examples)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, steps)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, planned_steps)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_begin_t, loss)},
    {FM_KIND_VECTOR, 8u, 0u, (uint8_t)offsetof(fm_update_begin_t, ranges)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_chunk_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_chunk_t, index)},
    {FM_KIND_U32, 0u, 5u, (uint8_t)offsetof(fm_update_chunk_t, scale)},
    {FM_KIND_BULK, 1u, 0u, (uint8_t)offsetof(fm_update_chunk_t, data)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_end_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_end_t, chunks)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_end_t, crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_status_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_status_t, crc32)},
    {FM_KIND_U8, 3u, 0u, (uint8_t)offsetof(fm_update_status_t, state)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_status_t, retry_after_ms)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_update_status_t, first)},
    {FM_KIND_VECTOR, 1u, 0u, (uint8_t)offsetof(fm_update_status_t, received)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_progress_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_progress_t, steps)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_progress_t, planned_steps)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_progress_t, examples)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_progress_t, loss)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_closing_notice_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_closing_notice_t, remaining_ms)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_receipt_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_receipt_t, crc32)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_commit_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_commit_t, model_version)},
    {FM_KIND_U8, 2u, 1u, (uint8_t)offsetof(fm_device_state_t, online)},
    {FM_KIND_U8, 0u, 3u, (uint8_t)offsetof(fm_device_state_t, battery)},
    {FM_KIND_U8, 0u, 0u, (uint8_t)offsetof(fm_device_state_t, flags)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_evaluation_t, round)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_evaluation_t, model_version)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_evaluation_t, examples)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_evaluation_t, correct)},
    {FM_KIND_U32, 0u, 0u, (uint8_t)offsetof(fm_evaluation_t, loss)},
};

#endif
