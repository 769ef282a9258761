/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ESP-IDF's header of this name. */
#include "esp_err.h"
esp_err_t esp_netif_init(void);
