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

uint32_t fm_cobs_push(fm_cobs_decoder_t *decoder, uint8_t *out, uint32_t capacity, uint32_t byte) {
  const uint32_t count = decoder->count;
  uint32_t left = decoder->left;
  uint32_t ended = 0u;
  if (byte == 0u) {
    ended = ((left == 0u) && (count <= (capacity + 1u))) ? count : FM_COBS_DAMAGED;
    decoder->count = 0u;
    left = 0u;
  } else {
    if ((count != 0u) && (count <= capacity)) {
      out[count - 1u] = (left == 0u) ? 0u : (uint8_t)byte;
    }
    if (count <= (capacity + 1u)) {
      decoder->count = count + 1u;
    }
    left = ((left == 0u) ? byte : left) - 1u;
  }
  decoder->left = left;
  return ended;
}
