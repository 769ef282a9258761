/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FM_CRC32_H
#define FM_CRC32_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CRC-32 of zlib and Ethernet (reflected 0xEDB88320). Start with crc = 0; pass the result on to continue. Linear in
 * size; a table of 64 bytes. */
uint32_t fm_crc32(uint32_t crc, const void *bytes, uint32_t size);

#ifdef __cplusplus
}
#endif

#endif
