/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_cobs.h"

void fm_cobs_encode(uint8_t *frame, uint32_t size) {
  uint32_t code_at = 0u;
  frame[size + 1u] = 0u;
  for (uint32_t i = 1u; i <= (size + 1u); i++) {
    if (frame[i] == 0u) {
      frame[code_at] = (uint8_t)(i - code_at);
      code_at = i;
    }
  }
}

static fm_cobs_result_t finish(fm_cobs_decoder_t *decoder) {
  fm_cobs_result_t result = FM_COBS_FRAME;
  if (!decoder->inside) {
    result = FM_COBS_EMPTY;
  } else if (decoder->full) {
    result = FM_COBS_OVERSIZE;
  } else if (decoder->left != 0u) {
    result = FM_COBS_CUT;
  } else {
    /* whole */
  }
  decoder->inside = false;
  decoder->full = false;
  decoder->left = 0u;
  return result;
}

fm_cobs_result_t fm_cobs_push(fm_cobs_decoder_t *decoder, uint8_t *out, uint32_t capacity, uint8_t byte) {
  fm_cobs_result_t result = FM_COBS_MORE;
  if (byte == 0u) {
    result = finish(decoder);
  } else {
    const bool code = decoder->left == 0u;
    if (!decoder->inside) {
      decoder->size = 0u;
      decoder->inside = true;
    } else if (decoder->size < capacity) {
      out[decoder->size] = code ? 0u : byte;
      decoder->size++;
    } else {
      decoder->full = true;
    }
    decoder->left = code ? (uint8_t)(byte - 1u) : (uint8_t)(decoder->left - 1u);
  }
  return result;
}
