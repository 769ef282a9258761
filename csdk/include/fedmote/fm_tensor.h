/* SPDX-License-Identifier: Apache-2.0 */
/* The table of tensors: where a device's parameters are, and which of them are shared with the fleet. */
#ifndef FM_TENSOR_H
#define FM_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Access to parameters that are not in RAM. Offsets and sizes are bytes of the tensor's little-endian float32 image and
 * need not be multiples of 4. The functions must not block for long and must not call the client. */
typedef struct {
  fm_status_t (*read)(void *user, uint32_t offset, uint8_t *out, uint32_t size);
  fm_status_t (*write)(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size);
  void *user;
} fm_tensor_io_t;

/* One tensor of float32 elements. Shared tensors, in table order, laid end to end, are the model's flat vector. */
typedef struct {
  const char *name;         /* 1 to FM_MAX_TENSOR_NAME bytes, unique in the table */
  uint32_t count;           /* elements, at least 1 */
  bool local;               /* true: stays on the device (a personal head); it is neither sent nor overwritten */
  float *data;              /* in RAM; NULL: reached through `io` */
  float *base;              /* holds a copy of the last model received, or NULL. Needed for deltas and FedProx */
  const fm_tensor_io_t *io; /* used when data is NULL */
} fm_tensor_t;

/* Return the total number of elements of the shared tensors. */
uint32_t fm_tensors_shared(const fm_tensor_t *tensors, uint32_t count);

/* Return the CRC-32 by which Hello compares layouts: over each shared tensor in table order, its name, a zero byte, and
 * its count as a little-endian uint32. */
uint32_t fm_tensors_layout_crc32(const fm_tensor_t *tensors, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
