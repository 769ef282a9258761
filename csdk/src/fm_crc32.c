/* SPDX-License-Identifier: Apache-2.0 */
#include "fedmote/fm_crc32.h"

uint32_t fm_crc32(uint32_t crc, const void *bytes, uint32_t size) {
  /* Half a byte at a time: 64 bytes of flash instead of 1,024. */
  static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                     0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                     0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  const uint8_t *in = (const uint8_t *)bytes;
  uint32_t register_ = ~crc;
  for (uint32_t i = 0u; i < size; i++) {
    register_ ^= in[i];
    register_ = (register_ >> 4) ^ table[register_ & 15u];
    register_ = (register_ >> 4) ^ table[register_ & 15u];
  }
  return ~register_;
}
