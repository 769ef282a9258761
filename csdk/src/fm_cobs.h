/* SPDX-License-Identifier: Apache-2.0 */
/* Consistent overhead byte stuffing (Cheshire and Baker, 1999): frames without a zero byte inside, so that a zero
 * always means "a frame ends here". Frames up to 253 bytes, which cost exactly one byte more: the code 255, which no
 * zero follows, never occurs. */
#ifndef FM_COBS_H
#define FM_COBS_H

#include "fedmote/fm_serial.h"

#define FM_COBS_DAMAGED 1u

/* Stuff frame[1 .. size] in place; frame[0] becomes the first code byte and frame[size + 1] the zero at the end.
 * size: 1 to 253. Linear in size. */
void fm_cobs_encode(uint8_t *frame, uint32_t size);

/* Decode one received byte. The frame collects in `out`, of `capacity` (1 to 253) bytes; pass the same `out` in every
 * call. Constant time. Returns 0 while no frame ends, otherwise 1 + the number of bytes in `out`, which are valid until
 * the next call. FM_COBS_DAMAGED: the frame was cut, too long or empty. The second of two zeros in a row ends no frame.
 */
uint32_t fm_cobs_push(fm_cobs_decoder_t *decoder, uint8_t *out, uint32_t capacity, uint32_t byte);

#endif
