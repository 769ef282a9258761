/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

#include <string.h>

#include "little_endian.h"

/* The loader picks the AVX2 copy where the processor has it. Both give the same bits: no fused multiply-add. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

#define LARGEST_FLOAT 3.4028234663852886e38
#define BLOCK 512u /* elements decoded on the stack at a time; stays in the first-level cache */

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

/* The order of additions is fixed, in LANES sums side by side, so that every processor gives the same bits. */
#define LANES 8u

WIDE static double squares_of(const float *restrict values, size_t count) {
  double lanes[LANES] = {0.0};
  double sum = 0.0;
  size_t i = 0u;
  for (; (count - i) >= LANES; i += LANES) {
    for (size_t k = 0u; k < LANES; k++) {
      const double value = (double)values[i + k];
      lanes[k] += value * value;
    }
  }
  for (; i < count; i++) {
    sum += (double)values[i] * (double)values[i];
  }
  for (size_t k = 0u; k < LANES; k++) {
    sum += lanes[k];
  }
  return sum;
}

WIDE static double squared_distance(const float *restrict values, const float *restrict base, size_t count) {
  double lanes[LANES] = {0.0};
  double sum = 0.0;
  size_t i = 0u;
  for (; (count - i) >= LANES; i += LANES) {
    for (size_t k = 0u; k < LANES; k++) {
      const double value = (double)values[i + k] - (double)base[i + k];
      lanes[k] += value * value;
    }
  }
  for (; i < count; i++) {
    const double value = (double)values[i] - (double)base[i];
    sum += value * value;
  }
  for (size_t k = 0u; k < LANES; k++) {
    sum += lanes[k];
  }
  return sum;
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
  double *sum;          /* NULL: only check */
  double *weight;       /* NULL: left alone */
  fmb_change_t *change; /* not NULL: only measure */
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

static void measure_run(const folder_t *f, run_t run) {
  const fmb_update_t *u = f->update;
  float values[BLOCK];
  size_t left = run.count;
  f->change->covered += run.count;
  while (left > 0u) {
    run.count = (left < BLOCK) ? left : BLOCK;
    decode(u, &run, values);
    f->change->squares +=
        (u->base == NULL) ? squares_of(values, run.count) : squared_distance(values, &u->base[run.model], run.count);
    run.model += run.count;
    run.vector += run.count;
    left -= run.count;
  }
}

static uint32_t fold_run(const folder_t *f, const run_t *run) {
  const fmb_update_t *u = f->update;
  uint32_t bad = 0u;
  if (f->change != NULL) {
    measure_run(f, *run);
  } else if ((u->encoding == FMB_ENCODING_INT8) || (u->base != NULL)) {
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

static bool weight_fits(const fmb_update_t *u) {
  return (u->example_weight > 0.0) && (u->example_weight <= FMB_LARGEST_WEIGHT);
}

static bool sizes_fit(const fmb_update_t *u, size_t elements) {
  const size_t total = covered(u, elements);
  return encoding_known(u->encoding) && (total > 0u) && (u->data_size == (total * width_of(u))) &&
         (u->chunk_elements > 0u) && chunks_fit(u, total);
}

int fmb_fold(double *sum, double *weight, size_t elements, const fmb_update_t *update) {
  int result = FMB_FOLD_SIZES;
  if (weight_fits(update) && sizes_fit(update, elements)) {
    const folder_t check = {update, NULL, NULL, NULL};
    const folder_t add = {update, sum, weight, NULL};
    result = FMB_FOLD_NON_FINITE;
    if (fold_all(&check, elements) == 0u) {
      (void)fold_all(&add, elements);
      result = FMB_FOLD_OK;
    }
  }
  return result;
}

int fmb_measure(const float *base, size_t elements, const fmb_update_t *update, bool delta, fmb_change_t *change) {
  int result = FMB_FOLD_SIZES;
  if (sizes_fit(update, elements)) {
    fmb_update_t against = *update;
    const folder_t measure = {&against, NULL, NULL, change};
    against.base = delta ? NULL : base;
    change->squares = 0.0;
    change->covered = 0u;
    (void)fold_all(&measure, elements);
    result = FMB_FOLD_OK;
  }
  return result;
}
