/* SPDX-License-Identifier: Apache-2.0 */
/* What Python sees of the C code, read by build_ffi.py. The compiler checks it against the real headers: a struct with `...;` takes its
 * layout from them, a complete one must match. */

/* kernels.h */
typedef struct {
  const uint8_t *data;
  size_t data_size;
  const float *base;
  const float *scales;
  const uint8_t *received;
  size_t chunks;
  size_t chunk_elements;
  const uint32_t *ranges;
  size_t range_count;
  double example_weight;
  int encoding;
} fmb_update_t;

int fmb_fold(double *sum, double *weight, size_t elements, const fmb_update_t *update);
void fmb_finish(const double *sum, const double *weight, double whole, const float *base, float *out, size_t elements);
int fmb_all_finite(const uint8_t *data, size_t elements);
uint32_t fmb_crc32(uint32_t crc, const uint8_t *data, size_t size);
