/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in the wire's byte order. */
#ifndef FMB_LITTLE_ENDIAN_H
#define FMB_LITTLE_ENDIAN_H

#include <stdint.h>
#include <string.h>

static inline uint32_t load_le32(const uint8_t *bytes) {
#if defined(__BYTE_ORDER__) && (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
  uint32_t value;
  (void)memcpy(&value, bytes, sizeof value);
  return value;
#else
  return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) | ((uint32_t)bytes[3] << 24);
#endif
}

#endif
