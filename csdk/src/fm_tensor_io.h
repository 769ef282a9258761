/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: the shared tensors as one byte string. `mask` picks tensors by their bit; local ones are never picked. */
#ifndef FM_TENSOR_IO_H
#define FM_TENSOR_IO_H

#include "fedmote/fm_config.h"
#include "fedmote/fm_tensor.h"
#include "fm_bits.h"

/* The bit of tensor `t` in a mask. */
#if FM_MAX_TENSORS > 32
#define FM_TENSOR_BIT(t) (1uL << (((t) < 31u) ? (t) : 31u))
#else
#define FM_TENSOR_BIT(t) (1uL << (t))
#endif

/* Elements of the shared tensors in `mask`. */
uint32_t fm_tensors_elements(const fm_tensor_t *tensors, uint32_t count, uint32_t mask);

/* Read bytes of the little-endian image of the tensors in `mask` laid end to end; from their base copies when `base`.
 */
fm_status_t fm_tensors_read(const fm_tensor_t *tensors, uint32_t count, uint32_t mask, bool base, uint32_t offset,
                            uint8_t *out, uint32_t size);

/* Write bytes of that image into the working copies and, when `base`, into the base copies where there are any. */
fm_status_t fm_tensors_write(const fm_tensor_t *tensors, uint32_t count, uint32_t mask, bool base, uint32_t offset,
                             const uint8_t *bytes, uint32_t size);

#endif
