/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for Zephyr's header of this name. */
#ifndef STAND_IN_RANDOM_H
#define STAND_IN_RANDOM_H

#include <stdint.h>

uint32_t sys_rand32_get(void);

#endif
