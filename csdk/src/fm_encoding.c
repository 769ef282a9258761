/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_encoding.h"

#include <string.h>

#include "fedmote/fm_config.h"
#include "fedmote/fm_wire.h"
#include "fm_tensor_io.h"

#define PIECE 16u /* elements on the stack at a time */

static uint32_t load_le32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) | ((uint32_t)bytes[3] << 24);
}

static float load_float(const uint8_t *bytes) {
  const uint32_t bits = load_le32(bytes);
  float value;
  (void)memcpy(&value, &bits, sizeof value);
  return value;
}

static void store_float(float value, uint8_t *bytes) {
  uint32_t bits;
  (void)memcpy(&bits, &value, sizeof bits);
  bytes[0] = (uint8_t)bits;
  bytes[1] = (uint8_t)(bits >> 8);
  bytes[2] = (uint8_t)(bits >> 16);
  bytes[3] = (uint8_t)(bits >> 24);
}

/* Up to PIECE values of the update vector, as float. */
static fm_status_t read_values(const fm_encoder_t *e, uint32_t first, uint32_t count, float *out) {
  uint8_t bytes[4u * PIECE];
  fm_status_t status = fm_tensors_read(e->tensors, e->tensor_count, e->mask, false, 4u * first, bytes, 4u * count);
  for (uint32_t i = 0u; (status == FM_OK) && (i < count); i++) {
    out[i] = load_float(&bytes[4u * i]);
  }
  if ((status == FM_OK) && e->delta) {
    status = fm_tensors_read(e->tensors, e->tensor_count, e->mask, true, 4u * first, bytes, 4u * count);
    for (uint32_t i = 0u; (status == FM_OK) && (i < count); i++) {
      out[i] -= load_float(&bytes[4u * i]);
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
  if ((shifted > -129.0f) && (shifted < 129.0f)) { /* false for NaN: its code does not matter, its scale says it */
    code = (int32_t)shifted;
    if ((float)code > shifted) {
      code--; /* the cast rounds towards zero, floor is wanted */
    }
    code = (code > 127) ? 127 : ((code < -127) ? -127 : code);
  }
  return (uint8_t)(code & 0xFF);
}

static fm_status_t read_int8(const fm_encoder_t *e, uint32_t first, float scale, uint32_t offset, uint8_t *out,
                             uint32_t size) {
  float values[PIECE];
  fm_status_t status = FM_OK;
  const float inverse = (scale > 0.0f) ? (1.0f / scale) : 0.0f;
  for (uint32_t done = 0u; (status == FM_OK) && (done < size); done += PIECE) {
    const uint32_t count = ((size - done) < PIECE) ? (size - done) : PIECE;
    const uint32_t position = first + offset + done;
    status = read_values(e, position, count, values);
    for (uint32_t i = 0u; (status == FM_OK) && (i < count); i++) {
      out[done + i] = quantise(values[i] * inverse, uniform(e->seed, position + i));
    }
  }
  return status;
}

static fm_status_t scale_int8(const fm_encoder_t *e, uint32_t first, uint32_t count, float *scale) {
  float values[PIECE];
  float largest = 0.0f;
  bool finite = true;
  fm_status_t status = FM_OK;
  for (uint32_t done = 0u; (status == FM_OK) && (done < count); done += PIECE) {
    const uint32_t piece = ((count - done) < PIECE) ? (count - done) : PIECE;
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

/* Deltas as float32: whole elements go through the arithmetic, the asked-for bytes are cut out of them. */
static fm_status_t read_delta(const fm_encoder_t *e, uint32_t first, uint32_t offset, uint8_t *out, uint32_t size) {
  float values[PIECE];
  fm_status_t status = FM_OK;
  uint32_t done = 0u;
  while ((status == FM_OK) && (done < size)) {
    const uint32_t at = offset + done;
    const uint32_t skip = at & 3u;
    const uint32_t wanted = (skip + (size - done) + 3u) / 4u;
    const uint32_t count = (wanted < PIECE) ? wanted : PIECE;
    const uint32_t room = (4u * count) - skip;
    const uint32_t piece = ((size - done) < room) ? (size - done) : room;
    status = read_values(e, first + (at / 4u), count, values);
    for (uint32_t i = 0u; (status == FM_OK) && (i < piece); i++) {
      uint8_t bytes[4];
      store_float(values[(skip + i) / 4u], bytes);
      out[done + i] = bytes[(skip + i) & 3u];
    }
    done += piece;
  }
  return status;
}

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

fm_status_t fm_encoding_read(const fm_encoder_t *encoder, uint32_t first, float scale, uint32_t offset, uint8_t *out,
                             uint32_t size) {
  fm_status_t status;
#if FM_WITH_INT8
  if (encoder->encoding == FM_ENCODING_INT8) {
    status = read_int8(encoder, first, scale, offset, out, size);
  } else
#endif
      if (encoder->delta) {
    status = read_delta(encoder, first, offset, out, size);
  } else {
    status = fm_tensors_read(encoder->tensors, encoder->tensor_count, encoder->mask, false, (4u * first) + offset, out,
                             size);
  }
  (void)scale;
  return status;
}
