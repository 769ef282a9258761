/* SPDX-License-Identifier: Apache-2.0 */
#include "app.h"
#include "esp_err.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "examples.h"
#include "fm_esp_flash.h"
#include "fm_esp_tcp.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "nvs_flash.h"
#include "protocol_examples_common.h"
#include "sdkconfig.h"

#define LONGEST_BUSY_MS 200u /* then the idle task must run, or its watchdog resets the board */

static const char *const tag = "device";

static void log_line(void *user, const char *line) {
  (void)user;
  ESP_LOGI(tag, "%s", line);
}

/* Return NULL for an empty setting. */
static const char *text(const char *setting) { return (setting[0] != '\0') ? setting : NULL; }

static uint32_t now_ms(void) { return (uint32_t)(esp_timer_get_time() / 1000); }

/* Wi-Fi or Ethernet, as `idf.py menuconfig` says under "Example Connection Configuration". */
static void connect_network(void) {
  ESP_ERROR_CHECK(nvs_flash_init());
  ESP_ERROR_CHECK(esp_netif_init());
  ESP_ERROR_CHECK(esp_event_loop_create_default());
  ESP_ERROR_CHECK(example_connect());
}

static void run(app_t *app, const fm_esp_tcp_t *tcp) {
  uint32_t slept_at_ms = now_ms();
  for (;;) {
    const uint32_t wait_ms = app_poll(app, now_ms());
    if (wait_ms != 0u) {
      fm_esp_tcp_wait(tcp, wait_ms);
      slept_at_ms = now_ms();
    } else if ((now_ms() - slept_at_ms) >= LONGEST_BUSY_MS) {
      vTaskDelay(1);
      slept_at_ms = now_ms();
    } else {
      /* there is work */
    }
  }
}

void app_main(void) {
  static fm_esp_tcp_t tcp;
  static fm_esp_flash_t flash;
  static fm_storage_t storage;
  static const fm_dataset_t examples = {EXAMPLES, examples_read, NULL};
  static app_platform_t platform;
  static app_t app;
  connect_network();
  platform.examples = &examples;
  platform.device_id = CONFIG_APP_DEVICE_ID;
  platform.link.federation = CONFIG_APP_FEDERATION;
  platform.link.username = text(CONFIG_APP_BROKER_USER);
  platform.link.password = text(CONFIG_APP_BROKER_PASSWORD);
  platform.seed = esp_random();
  platform.log = log_line;
  fm_esp_tcp_init(&tcp, CONFIG_APP_BROKER_HOST, CONFIG_APP_BROKER_PORT, &platform.stream);
  if (fm_esp_flash_init(&flash, "fedmote", &storage) == FM_OK) {
    platform.storage = &storage;
  } else {
    ESP_LOGW(tag, "no partition fedmote: nothing outlives a reset");
  }
  if (app_init(&app, &platform) == FM_OK) {
    run(&app, &tcp);
  }
}
