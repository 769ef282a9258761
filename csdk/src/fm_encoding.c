/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_encoding.h"

#include <string.h>

#include "fedmote/fm_config.h"
#include "fedmote/fm_wire.h"
#include "fm_tensor_io.h"

#define PIECE 6u /* elements on the stack at a time */

/* Convert in place between the little-endian image and this machine's floats. */
static void swap_unless_little(float *values, uint32_t count) {
  if (!fm_little_endian()) {
    uint8_t *bytes = (uint8_t *)values;
    for (uint32_t i = 0u; i < (4u * count); i += 4u) {
      const uint8_t image[4] = {bytes[i + 3u], bytes[i + 2u], bytes[i + 1u], bytes[i]};
      (void)memcpy(&bytes[i], image, sizeof image);
    }
  }
}

static fm_status_t read_floats(const fm_encoder_t *e, bool base, uint32_t first, uint32_t count, float *out) {
  const fm_status_t status =
      fm_tensors_read(e->tensors, e->tensor_count, e->mask, base, 4u * first, (uint8_t *)out, 4u * count);
  swap_unless_little(out, count);
  return status;
}

/* Read up to PIECE values of the update vector. */
static fm_status_t read_values(const fm_encoder_t *e, uint32_t first, uint32_t count, float *out) {
  fm_status_t status = read_floats(e, false, first, count, out);
  if ((status == FM_OK) && e->delta) {
    float base[PIECE];
    status = read_floats(e, true, first, count, base);
    for (uint32_t i = 0u; (status == FM_OK) && (i < count); i++) {
      out[i] -= base[i];
    }
  }
  return status;
}

uint32_t fm_encoding_width(uint8_t encoding) { return (encoding == FM_ENCODING_INT8) ? 1u : 4u; }

#if FM_WITH_INT8

#define LARGEST_FLOAT 3.4028234e38f

/* Uniform in [0, 1) from (seed, position): a 32-bit finaliser (the one of MurmurHash3, Appleby 2011, public domain). */
static float uniform(uint32_t seed, uint32_t position) {
  uint32_t h = seed ^ (position * 0x9E3779B9u);
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return (float)(h >> 8) * (1.0f / 16777216.0f);
}

static uint8_t quantise(float scaled, float dither) {
  const float shifted = scaled + dither;
  int32_t code = 0;
  if ((shifted > -129.0f) && (shifted < 129.0f)) { /* false for NaN, which the chunk's scale reports */
    code = (int32_t)shifted;
    if ((float)code > shifted) {
      code--; /* the cast rounds towards zero, but this needs floor */
    }
    code = (code > 127) ? 127 : ((code < -127) ? -127 : code);
  }
  return (uint8_t)code;
}

static void encode_int8(const fm_encoder_t *e, uint32_t position, float scale, const float *values, uint8_t *out,
                        uint32_t count) {
  const float inverse = (scale > 0.0f) ? (1.0f / scale) : 0.0f;
  for (uint32_t i = 0u; i < count; i++) {
    out[i] = quantise(values[i] * inverse, uniform(e->seed, position + i));
  }
}

static fm_status_t scale_int8(const fm_encoder_t *e, uint32_t first, uint32_t count, float *scale) {
  float values[PIECE];
  float largest = 0.0f;
  bool finite = true;
  fm_status_t status = FM_OK;
  for (uint32_t done = 0u; (status == FM_OK) && (done < count); done += PIECE) {
    const uint32_t piece = fm_smaller(count - done, PIECE);
    status = read_values(e, first + done, piece, values);
    for (uint32_t i = 0u; (status == FM_OK) && (i < piece); i++) {
      const float size = (values[i] < 0.0f) ? -values[i] : values[i];
      finite = finite && (size <= LARGEST_FLOAT);
      largest = (size > largest) ? size : largest;
    }
  }
  if (finite) {
    *scale = largest / 127.0f;
  } else {
    const uint32_t not_a_number = 0x7FC00000u;
    (void)memcpy(scale, &not_a_number, sizeof *scale);
  }
  return status;
}

#endif

fm_status_t fm_encoding_scale(const fm_encoder_t *encoder, uint32_t first, uint32_t count, float *scale) {
  fm_status_t status = FM_OK;
  *scale = 1.0f;
#if FM_WITH_INT8
  if (encoder->encoding == FM_ENCODING_INT8) {
    status = scale_int8(encoder, first, count, scale);
  }
#else
  (void)encoder;
  (void)first;
  (void)count;
#endif
  return status;
}

/* Compute whole elements, then copy the requested bytes of them. */
fm_status_t fm_encoding_read(const fm_encoder_t *encoder, uint32_t first, float scale, uint32_t offset, uint8_t *out,
                             uint32_t size) {
  const uint32_t width = fm_encoding_width(encoder->encoding);
  fm_status_t status = FM_OK;
  uint32_t done = 0u;
  while ((status == FM_OK) && (done < size)) {
    float values[PIECE];
    const uint32_t skip = (offset + done) & (width - 1u);
    const uint32_t position = first + ((offset + done) / width);
    const uint32_t count = fm_smaller(PIECE, (skip + (size - done) + width - 1u) / width);
    const uint32_t piece = fm_smaller(size - done, (width * count) - skip);
    status = read_values(encoder, position, count, values);
#if FM_WITH_INT8
    if (encoder->encoding == FM_ENCODING_INT8) {
      encode_int8(encoder, position, scale, values, &out[done], piece);
    } else
#endif
    {
      swap_unless_little(values, count);
      (void)memcpy(&out[done], &((const uint8_t *)values)[skip], (size_t)piece);
    }
    done += piece;
  }
  (void)scale;
  return status;
}
