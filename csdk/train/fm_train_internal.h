/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the trainer share. */
#ifndef FM_TRAIN_INTERNAL_H
#define FM_TRAIN_INTERNAL_H

#include <stdint.h>

static inline uint32_t mix(uint32_t x) {
  uint32_t h = x; /* a 32-bit finaliser (MurmurHash3's, public domain) */
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return h;
}

#endif
