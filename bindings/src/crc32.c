/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32: carry-less multiplication where the processor has it, tables elsewhere. */
#include <string.h>

#include "crc32_tables.h"
#include "kernels.h"
#include "little_endian.h"

#if defined(__x86_64__) && defined(__GNUC__) && defined(__gnu_linux__)
#define FMB_X86 1
#include <wmmintrin.h>
#endif

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
