/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ESP-IDF's header of this name. */
#include "freertos/FreeRTOS.h"
void vTaskDelay(TickType_t ticks);
