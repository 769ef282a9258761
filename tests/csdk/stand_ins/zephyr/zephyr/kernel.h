/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for Zephyr's header of this name: the little of it that fedmote uses, declared as it is there. */
#ifndef STAND_IN_KERNEL_H
#define STAND_IN_KERNEL_H

#include <stddef.h>
#include <stdint.h>

uint32_t k_uptime_get_32(void);
int32_t k_msleep(int32_t ms);

#endif
