/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: what an update's chunks hold. The only part of the core that computes with floating point. */
#ifndef FM_ENCODING_H
#define FM_ENCODING_H

#include "fedmote/fm_tensor.h"

typedef struct {
  const fm_tensor_t *tensors;
  uint32_t tensor_count;
  uint32_t mask;    /* covered tensors */
  uint32_t seed;    /* of the stochastic rounding: the same seed gives the same bytes */
  uint8_t encoding; /* FM_ENCODING_FLOAT32 or FM_ENCODING_INT8 */
  bool delta;       /* subtract the base */
} fm_encoder_t;

/* Bytes of one element. */
uint32_t fm_encoding_width(uint8_t encoding);

/* Scale of a chunk of `count` elements from `first` of the update vector: 1 for float32; for int8 max(abs) / 127, or
 * NaN when an element is not finite (the server refuses that, as it should). Linear in count. */
fm_status_t fm_encoding_scale(const fm_encoder_t *encoder, uint32_t first, uint32_t count, float *scale);

/* Bytes [offset, offset + size) of the data of the chunk that starts at element `first`. */
fm_status_t fm_encoding_read(const fm_encoder_t *encoder, uint32_t first, float scale, uint32_t offset, uint8_t *out,
                             uint32_t size);

#endif
