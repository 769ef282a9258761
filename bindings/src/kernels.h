/* SPDX-License-Identifier: Apache-2.0 */
/* The server's native kernels: everything that touches elements. No state; safe from any number of threads at once. */
#ifndef FMB_KERNELS_H
#define FMB_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The wire's Encoding; fm_wire.h has the same numbers, checked where both are seen. */
enum { FMB_ENCODING_FLOAT32 = 0, FMB_ENCODING_INT8 = 2 };

#define FMB_LARGEST_WEIGHT 1e18

/* Results of fmb_fold(). Unless it is FMB_FOLD_OK, nothing was added. */
enum {
  FMB_FOLD_OK = 0,
  FMB_FOLD_NON_FINITE = 1, /* NaN, infinity, or a value beyond float32 in the update */
  FMB_FOLD_SIZES = 2       /* lengths, ranges or chunks do not fit together */
};

/* One update, as the server holds it once its chunks have arrived: the data of all chunks laid end to end. */
typedef struct {
  const uint8_t *data; /* any alignment; little-endian */
  size_t data_size;
  const float *base;   /* of a delta: the model it adds to, `elements` long; NULL: the data are weights */
  const float *scales; /* int8: one for each chunk; otherwise ignored */
  size_t scale_count;
  const uint8_t *received; /* one for each chunk: 0 is a gap that is skipped; NULL: all chunks arrived */
  size_t received_count;
  size_t chunk_elements;  /* of each chunk but the last, which may have fewer; at least 1 */
  const uint32_t *ranges; /* pairs (first, count), ascending and apart; with range_count 0 the whole model */
  size_t range_count;
  double example_weight; /* > 0, at most FMB_LARGEST_WEIGHT so that no sum overflows */
  int encoding;          /* FMB_ENCODING_* */
} fmb_update_t;

/* Add the update to sum[] and weight[], both `elements` long. For each element that it covers, sum += example_weight *
 * value and weight += example_weight. It checks the whole update before it adds anything. Linear in elements. With
 * weight NULL only sum changes, and the caller keeps one scalar for all updates that cover the whole model. */
int fmb_fold(double *sum, double *weight, size_t elements, const fmb_update_t *update);

/* What an update changes: the sum of the squared differences to the model that it starts from, over the elements that
 * it covers, and how many these are. Not finite if an element is not. */
typedef struct {
  double squares;
  size_t covered;
} fmb_change_t;

/* Measure the update. base: of weights, the model they start from, `elements` long; of a delta it is not read.
 * update->base and example_weight are not read. Returns FMB_FOLD_OK, or FMB_FOLD_SIZES with *change unchanged. */
int fmb_measure(const float *base, size_t elements, const fmb_update_t *update, bool delta, fmb_change_t *change);

/* out = sum / (weight + whole) for each element that an update covers, else base. A mean that rounds past float32's
 * largest number becomes that number. */
void fmb_finish(const double *sum, const double *weight, double whole, const float *base, float *out, size_t elements);

/* Return 1 if all elements are finite, else 0. */
int fmb_all_finite(const uint8_t *data, size_t elements);

/* Return the CRC-32 of zlib and Ethernet, continued from `crc`, which is 0 at the start. */
uint32_t fmb_crc32(uint32_t crc, const uint8_t *data, size_t size);

#endif
