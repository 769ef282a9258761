/* SPDX-License-Identifier: Apache-2.0 */
/* Time and randomness from the debugger's machine (Arm's Semihosting for AArch32 and AArch64, release 2.0), for a board
 * that has neither. Without a debugger attached each call is a fault. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdbool.h>
#include <stdint.h>

/* Seconds since 1970. */
uint32_t semihosting_time(void);

/* The first `size` bytes of a file. False: it cannot be read, or is shorter. */
bool semihosting_read(const char *path, uint8_t *out, uint32_t size);

#endif
