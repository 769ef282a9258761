/* SPDX-License-Identifier: Apache-2.0 */
#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#include <zephyr/random/random.h>
#include <zephyr/storage/flash_map.h>

#include "app.h"
#include "examples.h"
#include "fm_zephyr_flash.h"
#include "fm_zephyr_tcp.h"

LOG_MODULE_REGISTER(device, LOG_LEVEL_INF);

static void log_line(void *user, const char *line) {
  (void)user;
  LOG_INF("%s", line);
}

/* Return NULL for an empty setting. */
static const char *text(const char *setting) { return (setting[0] != '\0') ? setting : NULL; }

int main(void) {
  static fm_zephyr_tcp_t tcp;
  static fm_zephyr_flash_t flash;
  static fm_storage_t storage;
  static const fm_dataset_t examples = {EXAMPLES, examples_read, NULL};
  static app_platform_t platform;
  static app_t app;
  fm_status_t status;
  platform.examples = &examples;
  platform.device_id = CONFIG_APP_DEVICE_ID;
  platform.link.federation = CONFIG_APP_FEDERATION;
  platform.link.username = text(CONFIG_APP_BROKER_USER);
  platform.link.password = text(CONFIG_APP_BROKER_PASSWORD);
  platform.seed = sys_rand32_get();
  platform.log = log_line;
  fm_zephyr_tcp_init(&tcp, CONFIG_APP_BROKER_HOST, CONFIG_APP_BROKER_PORT, &platform.stream);
  status = fm_zephyr_flash_init(&flash, FIXED_PARTITION_ID(storage_partition), &storage);
  if (status == FM_OK) {
    platform.storage = &storage;
  } else {
    LOG_WRN("storage_partition cannot be used: nothing outlives a reset");
  }
  status = app_init(&app, &platform);
  while (status == FM_OK) {
    fm_zephyr_tcp_wait(&tcp, app_poll(&app, k_uptime_get_32()));
  }
  return 0;
}
