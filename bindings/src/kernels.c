/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

#include <string.h>

#include "crc32_tables.h"

#if defined(__x86_64__) && defined(__GNUC__) && defined(__gnu_linux__)
#define FMB_X86 1
#include <wmmintrin.h>
#endif

/* The loader picks the AVX2 copy where the processor has it. Both give the same bits: no fused multiply-add. */
#if defined(FMB_X86) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

#define LARGEST_FLOAT 3.4028234663852886e38
#define BLOCK 512u /* elements decoded on the stack at a time; stays in the first-level cache */

static uint32_t load_le32(const uint8_t *bytes) {
#if defined(__BYTE_ORDER__) && (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
  uint32_t value;
  (void)memcpy(&value, bytes, sizeof value);
  return value;
#else
  return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) | ((uint32_t)bytes[3] << 24);
#endif
}

/* ---------------------------------------------------------------------------------------------------- CRC-32 */

#if defined(FMB_X86)
/* One step of carry-less folding: `state` moved forward by the distance that `k` stands for, plus the next data. */
__attribute__((target("pclmul"))) static inline __m128i fold_step(__m128i state, __m128i next, __m128i k) {
  const __m128i low = _mm_clmulepi64_si128(state, k, 0x00);
  const __m128i high = _mm_clmulepi64_si128(state, k, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* Fold a multiple of 64 bytes, at least 64, into 16 bytes that have the same remainder as data of that length. */
__attribute__((target("pclmul"))) static void crc32_fold(uint32_t state, const uint8_t *data, size_t size,
                                                         uint8_t out[16]) {
  const __m128i by_64 = _mm_set_epi64x((long long)FMB_CRC_FOLD_64_HIGH, (long long)FMB_CRC_FOLD_64_LOW);
  const __m128i by_16 = _mm_set_epi64x((long long)FMB_CRC_FOLD_16_HIGH, (long long)FMB_CRC_FOLD_16_LOW);
  __m128i lane[4];
  for (int i = 0; i < 4; i++) {
    lane[i] = _mm_loadu_si128((const __m128i *)(const void *)&data[16 * i]);
  }
  lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)state));
  for (size_t at = 64u; at < size; at += 64u) {
    for (size_t i = 0u; i < 4u; i++) {
      const __m128i next = _mm_loadu_si128((const __m128i *)(const void *)&data[at + (16u * i)]);
      lane[i] = fold_step(lane[i], next, by_64);
    }
  }
  for (int i = 1; i < 4; i++) {
    lane[i] = fold_step(lane[i - 1], lane[i], by_16);
  }
  _mm_storeu_si128((__m128i *)(void *)out, lane[3]);
}
#endif

/* Eight bytes at a time through eight tables; `state` is the complement of a CRC. */
static uint32_t crc32_tables(uint32_t state, const uint8_t *data, size_t size) {
  size_t at = 0u;
  for (; (size - at) >= 8u; at += 8u) {
    const uint32_t a = state ^ load_le32(&data[at]);
    const uint32_t b = load_le32(&data[at + 4u]);
    state = fmb_crc_tables[7][a & 0xFFu] ^ fmb_crc_tables[6][(a >> 8) & 0xFFu] ^ fmb_crc_tables[5][(a >> 16) & 0xFFu] ^
            fmb_crc_tables[4][a >> 24] ^ fmb_crc_tables[3][b & 0xFFu] ^ fmb_crc_tables[2][(b >> 8) & 0xFFu] ^
            fmb_crc_tables[1][(b >> 16) & 0xFFu] ^ fmb_crc_tables[0][b >> 24];
  }
  for (; at < size; at++) {
    state = (state >> 8) ^ fmb_crc_tables[0][(state ^ data[at]) & 0xFFu];
  }
  return state;
}

uint32_t fmb_crc32(uint32_t crc, const uint8_t *data, size_t size) {
  uint32_t state = ~crc;
  size_t done = 0u;
#if defined(FMB_X86)
  if ((size >= 64u) && (__builtin_cpu_supports("pclmul") != 0)) {
    uint8_t rest[16];
    done = size & ~(size_t)63u;
    crc32_fold(state, data, done, rest);
    state = crc32_tables(0u, rest, sizeof rest);
  }
#endif
  return ~crc32_tables(state, &data[done], size - done);
}

/* ------------------------------------------------------------------------------------------- loops over elements */

/* Return non-zero if any element is NaN or infinite: its exponent's bits are all set. */
WIDE static uint32_t any_non_finite(const uint8_t *restrict data, size_t count) {
  uint32_t bad = 0u;
  for (size_t i = 0u; i < count; i++) {
    const uint32_t exponent = load_le32(&data[4u * i]) & 0x7F800000u;
    bad |= (exponent == 0x7F800000u) ? 1u : 0u;
  }
  return bad;
}

WIDE static void decode_float32(const uint8_t *restrict data, size_t count, float *restrict out) {
  for (size_t i = 0u; i < count; i++) {
    const uint32_t bits = load_le32(&data[4u * i]);
    (void)memcpy(&out[i], &bits, sizeof bits);
  }
}

WIDE static void decode_int8(const uint8_t *restrict data, size_t count, float scale, float *restrict out) {
  for (size_t i = 0u; i < count; i++) {
    out[i] = (float)(int8_t)data[i] * scale;
  }
}

/* Return non-zero if any trained value, base + delta, is not finite as a float32. */
WIDE static uint32_t any_sum_non_finite(const float *restrict values, const float *restrict base, size_t count) {
  uint32_t bad = 0u;
  for (size_t i = 0u; i < count; i++) {
    const float value = values[i] + base[i];
    uint32_t bits;
    (void)memcpy(&bits, &value, sizeof bits);
    bad |= ((bits & 0x7F800000u) == 0x7F800000u) ? 1u : 0u;
  }
  return bad;
}

WIDE static void add_values(double *restrict sum, const float *restrict values, size_t count, double example_weight) {
  for (size_t i = 0u; i < count; i++) {
    sum[i] += example_weight * (double)values[i];
  }
}

WIDE static void add_values_to_base(double *restrict sum, const float *restrict values, const float *restrict base,
                                    size_t count, double example_weight) {
  for (size_t i = 0u; i < count; i++) {
    sum[i] += example_weight * ((double)base[i] + (double)values[i]);
  }
}

WIDE static void add_weight(double *restrict weight, size_t count, double example_weight) {
  for (size_t i = 0u; i < count; i++) {
    weight[i] += example_weight;
  }
}

/* The most frequent case, float32 weights, needs no decoded values. */
WIDE static void add_float32(double *restrict sum, const uint8_t *restrict data, size_t count, double example_weight) {
  for (size_t i = 0u; i < count; i++) {
    const uint32_t bits = load_le32(&data[4u * i]);
    float value;
    (void)memcpy(&value, &bits, sizeof value);
    sum[i] += example_weight * (double)value;
  }
}

WIDE static void mean(const double *restrict sum, const double *restrict weight, double whole,
                      const float *restrict base, float *restrict out, size_t count) {
  for (size_t i = 0u; i < count; i++) {
    const double total = weight[i] + whole;
    double value = sum[i] / ((total > 0.0) ? total : 1.0);
    value = (value > LARGEST_FLOAT) ? LARGEST_FLOAT : value;
    value = (value < -LARGEST_FLOAT) ? -LARGEST_FLOAT : value;
    out[i] = (total > 0.0) ? (float)value : base[i];
  }
}

int fmb_all_finite(const uint8_t *data, size_t elements) { return (any_non_finite(data, elements) == 0u) ? 1 : 0; }

void fmb_finish(const double *sum, const double *weight, double whole, const float *base, float *out, size_t elements) {
  mean(sum, weight, whole, base, out, elements);
}

/* --------------------------------------------------------------------------------------------------------- folding */

/* Elements that are neighbours both in the model and in one chunk. */
typedef struct {
  size_t model;  /* first element in the model */
  size_t vector; /* first element in the update vector */
  size_t count;
  size_t chunk;
} run_t;

typedef struct {
  const fmb_update_t *update;
  double *sum;    /* NULL: only check */
  double *weight; /* NULL: left alone */
} folder_t;

static size_t width_of(const fmb_update_t *u) { return (u->encoding == FMB_ENCODING_INT8) ? 1u : 4u; }

static void decode(const fmb_update_t *u, const run_t *run, float *values) {
  const uint8_t *data = &u->data[run->vector * width_of(u)];
  if (u->encoding == FMB_ENCODING_INT8) {
    decode_int8(data, run->count, u->scales[run->chunk], values);
  } else {
    decode_float32(data, run->count, values);
  }
}

/* Decode one run block by block, and check it or add it. Returns non-zero if it is not finite. */
static uint32_t fold_blocks(const folder_t *f, run_t run) {
  const fmb_update_t *u = f->update;
  float values[BLOCK];
  uint32_t bad = 0u;
  size_t left = run.count;
  while (left > 0u) {
    run.count = (left < BLOCK) ? left : BLOCK;
    decode(u, &run, values);
    if ((f->sum == NULL) && (u->base != NULL)) {
      bad |= any_sum_non_finite(values, &u->base[run.model], run.count);
    } else if (f->sum == NULL) {
      bad |= any_non_finite((const uint8_t *)values, run.count);
    } else if (u->base != NULL) {
      add_values_to_base(&f->sum[run.model], values, &u->base[run.model], run.count, u->example_weight);
    } else {
      add_values(&f->sum[run.model], values, run.count, u->example_weight);
    }
    run.model += run.count;
    run.vector += run.count;
    left -= run.count;
  }
  return bad;
}

static uint32_t fold_run(const folder_t *f, const run_t *run) {
  const fmb_update_t *u = f->update;
  uint32_t bad = 0u;
  if ((u->encoding == FMB_ENCODING_INT8) || (u->base != NULL)) {
    bad = fold_blocks(f, *run);
  } else if (f->sum == NULL) {
    bad = any_non_finite(&u->data[4u * run->vector], run->count);
  } else {
    add_float32(&f->sum[run->model], &u->data[4u * run->vector], run->count, u->example_weight);
  }
  if (f->weight != NULL) {
    add_weight(&f->weight[run->model], run->count, u->example_weight);
  }
  return bad;
}

/* Walk one range of the model, which starts at `vector` of the update vector, chunk by chunk. */
static uint32_t fold_range(const folder_t *f, size_t first, size_t count, size_t vector) {
  const fmb_update_t *u = f->update;
  uint32_t bad = 0u;
  size_t done = 0u;
  while (done < count) {
    run_t run = {first + done, vector + done, count - done, (vector + done) / u->chunk_elements};
    const bool by_chunk = (u->encoding == FMB_ENCODING_INT8) || (u->received != NULL);
    if (by_chunk) { /* otherwise a range is one run */
      const size_t in_chunk = u->chunk_elements - (run.vector % u->chunk_elements);
      run.count = (run.count < in_chunk) ? run.count : in_chunk;
    }
    if ((u->received == NULL) || (u->received[run.chunk] != 0u)) {
      bad |= fold_run(f, &run);
    }
    done += run.count;
  }
  return bad;
}

static uint32_t fold_all(const folder_t *f, size_t elements) {
  const fmb_update_t *u = f->update;
  uint32_t bad = 0u;
  size_t vector = 0u;
  for (size_t r = 0u; r < u->range_count; r++) {
    bad |= fold_range(f, u->ranges[2u * r], u->ranges[(2u * r) + 1u], vector);
    vector += u->ranges[(2u * r) + 1u];
  }
  if (u->range_count == 0u) {
    bad = fold_range(f, 0u, elements, 0u);
  }
  return bad;
}

/* Return the elements of the update vector; 0 if the ranges are not ascending, overlap or leave the model. */
static size_t covered(const fmb_update_t *u, size_t elements) {
  size_t total = (u->range_count == 0u) ? elements : 0u;
  size_t end = 0u;
  for (size_t r = 0u; r < u->range_count; r++) {
    const size_t first = u->ranges[2u * r];
    const size_t count = u->ranges[(2u * r) + 1u];
    if ((count == 0u) || (first < end) || (first > elements) || (count > (elements - first))) {
      return 0u;
    }
    end = first + count;
    total += count;
  }
  return total;
}

static bool encoding_known(int encoding) {
  return (encoding == FMB_ENCODING_FLOAT32) || (encoding == FMB_ENCODING_INT8);
}

/* Return whether there is one scale and one received mark for each chunk of `total` elements, where they are needed. */
static bool chunks_fit(const fmb_update_t *u, size_t total) {
  const size_t chunks = ((total - 1u) / u->chunk_elements) + 1u;
  const bool scales_fit = (u->encoding != FMB_ENCODING_INT8) || ((u->scales != NULL) && (u->scale_count == chunks));
  const bool received_fits = (u->received == NULL) || (u->received_count == chunks);
  return scales_fit && received_fits;
}

static bool sizes_fit(const fmb_update_t *u, size_t elements) {
  const size_t total = covered(u, elements);
  const bool weight_fits = (u->example_weight > 0.0) && (u->example_weight <= FMB_LARGEST_WEIGHT);
  return weight_fits && encoding_known(u->encoding) && (total > 0u) && (u->data_size == (total * width_of(u))) &&
         (u->chunk_elements > 0u) && chunks_fit(u, total);
}

int fmb_fold(double *sum, double *weight, size_t elements, const fmb_update_t *update) {
  int result = FMB_FOLD_SIZES;
  if (sizes_fit(update, elements)) {
    const folder_t check = {update, NULL, NULL};
    const folder_t add = {update, sum, weight};
    result = FMB_FOLD_NON_FINITE;
    if (fold_all(&check, elements) == 0u) {
      (void)fold_all(&add, elements);
      result = FMB_FOLD_OK;
    }
  }
  return result;
}
