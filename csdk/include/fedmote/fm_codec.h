/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to bytes and back: FlatBuffers, by one encoder and one verifier that tables drive (made from the schema). */
#ifndef FM_CODEC_H
#define FM_CODEC_H

#include <stdint.h>

#include "fedmote/fm_status.h"
#include "fedmote/fm_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Verify a message of `total` bytes, of which the first `available` are at `bytes` (any alignment), and read it into
 * *out. Everything is checked before it is read: bounds, alignment, offsets, required fields, enum ranges, terminators.
 * The views in *out point into `bytes`.
 *
 * With available < total, everything before the bulk data must have arrived. The view of the bulk data then reaches
 * past `available`; only its first available - out->bulk_offset bytes may be read. FM_AGAIN: the bytes so far are
 * valid, but more of the head is needed. FM_ERR_MESSAGE: not a valid message; *out is unspecified. Time is linear in
 * the number of fields; bulk data is not read.
 */
fm_status_t fm_message_decode(const uint8_t *bytes, uint32_t available, uint32_t total, fm_message_t *out);

/* Write a message to `out`. If it has bulk data, only the head (under 128 bytes) is written, up to and including the
 * data's length; exactly data.size bytes must follow. Scalars equal to their default, empty strings and empty vectors
 * are left out.
 *
 * *size: bytes written; with out == NULL, bytes needed. FM_ERR_BUFFER: needs more than `capacity`.
 * FM_ERR_ARGUMENT: no such type, or a required string is missing. */
fm_status_t fm_message_encode(const fm_message_t *message, uint8_t *out, uint32_t capacity, uint32_t *size);

/* Return element `index` of UpdateBegin.ranges; index < ranges.size / 8. */
fm_range_t fm_range_at(fm_bytes_t ranges, uint32_t index);

#ifdef __cplusplus
}
#endif

#endif
