/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_tensor_io.h"

#include <string.h>

#include "fedmote/fm_crc32.h"

/* Position in memory of byte `i` of the little-endian image of a float array. */
static uint32_t image_index(uint32_t i) { return fm_little_endian() ? i : (i ^ 3u); }

static void image_read(const float *values, uint32_t offset, uint8_t *out, uint32_t size) {
  const uint8_t *bytes = (const uint8_t *)values;
  if (fm_little_endian()) {
    (void)memcpy(out, &bytes[offset], (size_t)size);
  } else {
    for (uint32_t i = 0u; i < size; i++) {
      out[i] = bytes[image_index(offset + i)];
    }
  }
}

static void image_write(float *values, uint32_t offset, const uint8_t *in, uint32_t size) {
  uint8_t *bytes = (uint8_t *)values;
  if (fm_little_endian()) {
    (void)memcpy(&bytes[offset], in, (size_t)size);
  } else {
    for (uint32_t i = 0u; i < size; i++) {
      bytes[image_index(offset + i)] = in[i];
    }
  }
}

uint32_t fm_tensors_shared(const fm_tensor_t *tensors, uint32_t count) {
  return fm_tensors_elements(tensors, count, UINT32_MAX);
}

uint32_t fm_tensors_elements(const fm_tensor_t *tensors, uint32_t count, uint32_t mask) {
  uint32_t elements = 0u;
  for (uint32_t t = 0u; t < count; t++) {
    if (!tensors[t].local && ((mask & FM_TENSOR_BIT(t)) != 0u)) {
      elements += tensors[t].count;
    }
  }
  return elements;
}

uint32_t fm_tensors_layout_crc32(const fm_tensor_t *tensors, uint32_t count) {
  uint32_t crc = 0u;
  for (uint32_t t = 0u; t < count; t++) {
    if (!tensors[t].local) {
      const uint32_t n = tensors[t].count;
      const uint8_t size[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
      crc = fm_crc32(crc, tensors[t].name, (uint32_t)strlen(tensors[t].name) + 1u);
      crc = fm_crc32(crc, size, 4u);
    }
  }
  return crc;
}

static fm_status_t tensor_read(const fm_tensor_t *tensor, bool base, uint32_t offset, uint8_t *out, uint32_t size) {
  fm_status_t status = FM_OK;
  if (base) {
    image_read(tensor->base, offset, out, size);
  } else if (tensor->data != NULL) {
    image_read(tensor->data, offset, out, size);
  } else {
    status = tensor->io->read(tensor->io->user, offset, out, size);
  }
  return status;
}

static fm_status_t tensor_write(const fm_tensor_t *tensor, bool base, uint32_t offset, const uint8_t *bytes,
                                uint32_t size) {
  fm_status_t status = FM_OK;
  if (base && (tensor->base != NULL)) {
    image_write(tensor->base, offset, bytes, size);
  }
  if (tensor->data != NULL) {
    image_write(tensor->data, offset, bytes, size);
  } else {
    status = tensor->io->write(tensor->io->user, offset, bytes, size);
  }
  return status;
}

/* Find the tensor of `mask` that holds byte *offset of the tensors laid end to end; *offset becomes relative to it. */
static uint32_t locate(const fm_tensor_t *tensors, uint32_t count, uint32_t mask, uint32_t *offset) {
  uint32_t t = 0u;
  while (t < count) {
    if (!tensors[t].local && ((mask & FM_TENSOR_BIT(t)) != 0u)) {
      const uint32_t bytes = 4u * tensors[t].count;
      if (*offset < bytes) {
        break;
      }
      *offset -= bytes;
    }
    t++;
  }
  return t;
}

fm_status_t fm_tensors_read(const fm_tensor_t *tensors, uint32_t count, uint32_t mask, bool base, uint32_t offset,
                            uint8_t *out, uint32_t size) {
  fm_status_t status = FM_OK;
  uint32_t done = 0u;
  while ((status == FM_OK) && (done < size)) {
    uint32_t at = offset + done;
    const uint32_t t = locate(tensors, count, mask, &at);
    if (t == count) {
      status = FM_ERR_ARGUMENT;
    } else {
      const uint32_t left = (4u * tensors[t].count) - at;
      const uint32_t piece = fm_smaller(size - done, left);
      status = tensor_read(&tensors[t], base, at, &out[done], piece);
      done += piece;
    }
  }
  return status;
}

fm_status_t fm_tensors_write(const fm_tensor_t *tensors, uint32_t count, uint32_t mask, bool base, uint32_t offset,
                             const uint8_t *bytes, uint32_t size) {
  fm_status_t status = FM_OK;
  uint32_t done = 0u;
  while ((status == FM_OK) && (done < size)) {
    uint32_t at = offset + done;
    const uint32_t t = locate(tensors, count, mask, &at);
    if (t == count) {
      status = FM_ERR_ARGUMENT;
    } else {
      const uint32_t left = (4u * tensors[t].count) - at;
      const uint32_t piece = fm_smaller(size - done, left);
      status = tensor_write(&tensors[t], base, at, &bytes[done], piece);
      done += piece;
    }
  }
  return status;
}
