/* SPDX-License-Identifier: Apache-2.0 */
/* Consistent overhead byte stuffing (Cheshire and Baker, 1999): frames without a zero byte inside, so that a zero
 * always means "a frame ends here". Frames up to 253 bytes, which cost exactly one byte more. */
#ifndef FM_COBS_H
#define FM_COBS_H

#include "fedmote/fm_serial.h"

#define FM_COBS_MAX 253u /* bytes of a decoded frame: the code 255, which no zero follows, never occurs */

typedef enum {
  FM_COBS_MORE = 0, /* the frame goes on */
  FM_COBS_EMPTY,    /* a zero with nothing before it: no frame, no error */
  FM_COBS_FRAME,    /* `size` bytes are in out, until the next byte is pushed */
  FM_COBS_CUT,      /* the frame ended inside a block: bytes were lost */
  FM_COBS_OVERSIZE  /* the frame that ends here was too long */
} fm_cobs_result_t;

/* Stuff frame[1 .. size] in place; frame[0] becomes the first code byte and frame[size + 1] the zero at the end.
 * size: 1 to FM_COBS_MAX. Linear in size. */
void fm_cobs_encode(uint8_t *frame, uint32_t size);

/* Take one byte off the line; the frame collects in `out`, which has `capacity` (1 to FM_COBS_MAX) bytes and is the
 * same from call to call. Constant time. */
fm_cobs_result_t fm_cobs_push(fm_cobs_decoder_t *decoder, uint8_t *out, uint32_t capacity, uint8_t byte);

#endif
