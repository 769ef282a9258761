/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ESP-IDF's header of this name. */
#include <stdint.h>
int64_t esp_timer_get_time(void); /* microseconds */
