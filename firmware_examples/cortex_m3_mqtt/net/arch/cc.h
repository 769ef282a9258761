/* SPDX-License-Identifier: Apache-2.0 */
/* What lwIP wants to know of compiler and board: nothing that its defaults for gcc do not say, but these. */
#ifndef ARCH_CC_H
#define ARCH_CC_H

#include <stdint.h>

uint32_t net_random(void);
void net_assert(const char *what);

#define LWIP_RAND() net_random()
#define LWIP_PLATFORM_DIAG(message)
#define LWIP_PLATFORM_ASSERT(message) net_assert(message)
#define LWIP_NO_UNISTD_H 1

#endif
