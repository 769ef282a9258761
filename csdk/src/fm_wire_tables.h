/* SPDX-License-Identifier: Apache-2.0 */
/* Generated from schema/fedmote.fbs by csdk/tools/generate_codec.py. Do not edit. */

#ifndef FM_WIRE_TABLES_H
#define FM_WIRE_TABLES_H

#include <stddef.h>

#include "fedmote/fm_wire.h"

/* A field in 16 bits: form << 8 | where its member is in fm_message_t. The form's lower two bits are the logarithm of
 * the bytes that the field takes in a table; the upper five are a scalar's rule, or flags. */
typedef uint16_t fm_field_t;

#define FM_FORM_U8 0u
#define FM_FORM_U16 1u
#define FM_FORM_U32 2u
#define FM_FORM_OFFSET 4u /* this bit is set in all that lead elsewhere */
#define FM_FORM_REQUIRED 0x08u
#define FM_FORM_TERMINATED 0x10u
#define FM_FORM_LAST 0x20u                                       /* bulk data */
#define FM_FORM_ELEMENT(log2_size) ((uint32_t)(log2_size) << 6u) /* bytes of an element: 1 to 8 */
#define FM_FORM_VECTOR (FM_FORM_OFFSET | FM_FORM_U32)
#define FM_FORM_STRING (FM_FORM_VECTOR | FM_FORM_TERMINATED)
#define FM_FORM_BULK (FM_FORM_VECTOR | FM_FORM_LAST)
#define FM_FORM_BODY (FM_FORM_VECTOR | FM_FORM_REQUIRED | FM_FORM_TERMINATED | FM_FORM_LAST) /* like no other */
/* A scalar's upper five bits: where its default and limit are in fm_defaults and fm_limits. */
#define FM_RULE(index) ((uint32_t)(index) << 3u)
#define FM_FIELD(form, member) (fm_field_t)(((uint32_t)(form) << 8u) | (uint32_t)offsetof(fm_message_t, member))

/* Members' places must fit 8 bits. */
typedef char fm_members_fit_t[(sizeof(fm_message_t) <= 256u) ? 1 : -1];

#define FM_BODY_LAST 18u
#define FM_IDENTIFIER 0x46u, 0x4Du, 0x4Fu, 0x31u

/* Values of absent scalars. */
static const uint32_t fm_defaults[] = {0x0u, 0x0u, 0x0u,  0x0u,  0x0u,        0x0u,       0x0u,
                                       0x1u, 0x1u, 0x20u, 0xFFu, 0x3DCCCCCDu, 0x3F800000u};

/* Scalars are below these; 0: any value will do. */
static const uint8_t fm_limits[] = {0u, 2u, 3u, 4u, 6u, 9u, 19u, 0u, 2u, 0u, 0u, 0u, 0u};

/* The fields of body b are [fm_fields_start[b], fm_fields_start[b + 1]); those of Message itself come first. */
static const uint8_t fm_fields_start[] = {0u,  2u,  19u, 23u, 27u, 50u, 52u, 55u, 57u,  70u,
                                          74u, 77u, 83u, 88u, 90u, 92u, 94u, 97u, 103u, 108u};

static const fm_field_t fm_fields[] = {
    FM_FIELD(FM_FORM_U8 | FM_RULE(6u), type),
    FM_FIELD(FM_FORM_BODY, bulk_offset),
    FM_FIELD(FM_FORM_STRING | FM_FORM_REQUIRED, body.hello.device_id),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.hello.protocol_min),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.hello.protocol_max),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.boot),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.library_version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.elements),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.layout_crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.examples),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.hello.encodings),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.hello.kinds),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.model_version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.model_crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.held_round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.held_crc32),
    FM_FIELD(FM_FORM_U8 | FM_RULE(10u), body.hello.battery),
    FM_FIELD(FM_FORM_U8 | FM_RULE(0u), body.hello.flags),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.hello.free_memory_kib),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.welcome.protocol),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.welcome.boot),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.welcome.open_round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.welcome.come_back_ms),
    FM_FIELD(FM_FORM_U8 | FM_RULE(5u), body.refusal.reason),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.refusal.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.refusal.retry_after_ms),
    FM_FIELD(FM_FORM_STRING, body.refusal.detail),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.round),
    FM_FIELD(FM_FORM_U8 | FM_RULE(2u), body.plan.task),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.model_version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.model_elements),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.model_crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.model_chunk_elements),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.update_chunk_elements),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.plan.encodings),
    FM_FIELD(FM_FORM_U8 | FM_RULE(7u), body.plan.kinds),
    FM_FIELD(FM_FORM_U8 | FM_RULE(8u), body.plan.partial_allowed),
    FM_FIELD(FM_FORM_U8 | FM_RULE(1u), body.plan.slot_granted),
    FM_FIELD(FM_FORM_U16 | FM_RULE(7u), body.plan.epochs),
    FM_FIELD(FM_FORM_U16 | FM_RULE(9u), body.plan.batch_size),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.max_steps),
    FM_FIELD(FM_FORM_U32 | FM_RULE(11u), body.plan.learning_rate),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.prox_mu),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.seed),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.soft_deadline_ms),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.hard_deadline_ms),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.query_field),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.query_low),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.plan.query_high),
    FM_FIELD(FM_FORM_U8 | FM_RULE(0u), body.plan.query_bins),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.withdraw.round),
    FM_FIELD(FM_FORM_U8 | FM_RULE(4u), body.withdraw.reason),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.model_chunk.version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.model_chunk.index),
    FM_FIELD(FM_FORM_BULK | FM_FORM_ELEMENT(0u), body.model_chunk.data),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.chunk_request.version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.chunk_request.index),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.base_version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.elements),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.chunk_elements),
    FM_FIELD(FM_FORM_U8 | FM_RULE(3u), body.update_begin.encoding),
    FM_FIELD(FM_FORM_U8 | FM_RULE(1u), body.update_begin.kind),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.examples),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.steps),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.planned_steps),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.loss),
    FM_FIELD(FM_FORM_VECTOR | FM_FORM_ELEMENT(3u), body.update_begin.ranges),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_begin.base_crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_chunk.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_chunk.index),
    FM_FIELD(FM_FORM_U32 | FM_RULE(12u), body.update_chunk.scale),
    FM_FIELD(FM_FORM_BULK | FM_FORM_ELEMENT(0u), body.update_chunk.data),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_end.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_end.chunks),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_end.crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_status.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_status.crc32),
    FM_FIELD(FM_FORM_U8 | FM_RULE(2u), body.update_status.state),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_status.retry_after_ms),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.update_status.first),
    FM_FIELD(FM_FORM_VECTOR | FM_FORM_ELEMENT(0u), body.update_status.received),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.progress.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.progress.steps),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.progress.planned_steps),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.progress.examples),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.progress.loss),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.closing_notice.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.closing_notice.remaining_ms),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.receipt.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.receipt.crc32),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.commit.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.commit.model_version),
    FM_FIELD(FM_FORM_U8 | FM_RULE(8u), body.device_state.online),
    FM_FIELD(FM_FORM_U8 | FM_RULE(10u), body.device_state.battery),
    FM_FIELD(FM_FORM_U8 | FM_RULE(0u), body.device_state.flags),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.model_version),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.examples),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.correct),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.loss),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.evaluation.seed),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.answer.round),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.answer.seed),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.answer.count),
    FM_FIELD(FM_FORM_U32 | FM_RULE(0u), body.answer.sum),
    FM_FIELD(FM_FORM_VECTOR | FM_FORM_ELEMENT(2u), body.answer.counts),
};

#endif
