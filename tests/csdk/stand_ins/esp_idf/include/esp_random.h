/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ESP-IDF's header of this name. */
#include <stdint.h>
uint32_t esp_random(void);
