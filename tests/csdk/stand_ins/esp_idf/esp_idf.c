/* SPDX-License-Identifier: Apache-2.0 */
/* What the stand-ins for ESP-IDF's headers declare, on POSIX. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../nor_file.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_partition.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "freertos/task.h"
#include "nvs_flash.h"
#include "protocol_examples_common.h"

void app_main(void);

int main(void) {
  app_main();
  return 1; /* it does not return unless its settings were refused */
}

esp_err_t nvs_flash_init(void) { return ESP_OK; }
esp_err_t esp_netif_init(void) { return ESP_OK; }
esp_err_t esp_event_loop_create_default(void) { return ESP_OK; }
esp_err_t example_connect(void) { return ESP_OK; }

int64_t esp_timer_get_time(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return ((int64_t)now.tv_sec * 1000000) + (now.tv_nsec / 1000);
}

uint32_t esp_random(void) { return (uint32_t)esp_timer_get_time() ^ ((uint32_t)getpid() << 16); }

void vTaskDelay(TickType_t ticks) { (void)poll(NULL, 0u, (int)((ticks * 1000u) / configTICK_RATE_HZ)); }

void stand_in_log(char level, const char *tag, const char *format, ...) {
  va_list values;
  va_start(values, format);
  (void)printf("%c (%lld) %s: ", level, (long long)(esp_timer_get_time() / 1000), tag);
  (void)vprintf(format, values);
  (void)printf("\n");
  (void)fflush(stdout);
  va_end(values);
}

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label) {
  static const esp_partition_t partition = {.type = ESP_PARTITION_TYPE_DATA,
                                            .subtype = ESP_PARTITION_SUBTYPE_DATA_UNDEFINED,
                                            .size = NOR_SIZE,
                                            .erase_size = NOR_BLOCK,
                                            .label = "fedmote"};
  const bool found = (type == partition.type) && (subtype == ESP_PARTITION_SUBTYPE_ANY) &&
                     (strcmp(label, partition.label) == 0) && (getenv("STAND_IN_FLASH") != NULL);
  return found ? &partition : NULL;
}

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t src_offset, void *dst, size_t size) {
  (void)partition;
  return nor_read(src_offset, dst, size) ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src, size_t size) {
  (void)partition;
  return nor_program(dst_offset, src, size, 1u) ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size) {
  (void)partition;
  return nor_erase(offset, size) ? ESP_OK : ESP_FAIL;
}
