/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: small arithmetic that several files share. */
#ifndef FM_BITS_H
#define FM_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t fm_smaller(uint32_t a, uint32_t b) { return (a < b) ? a : b; }

/* Tell whether this machine stores a number's lowest byte first. Compilers compute this at compile time. */
static inline bool fm_little_endian(void) {
  const uint16_t probe = 1u;
  uint8_t first[sizeof probe];
  (void)memcpy(first, (const uint8_t *)&probe, sizeof probe);
  return first[0] == 1u;
}

static inline void fm_put_le32(uint8_t *out, uint32_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
  out[2] = (uint8_t)(value >> 16);
  out[3] = (uint8_t)(value >> 24);
}

/* xorshift32 (Marsaglia, "Xorshift RNGs", J. Stat. Software 8(14), 2003): for jitter and identities, not for secrets.
 * The state is never 0. */
static inline uint32_t fm_xorshift(uint32_t *state) {
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  *state = x;
  return x;
}

#endif
