/* SPDX-License-Identifier: Apache-2.0 */
/* Puts board, network, broker (TCP or TLS) and application together. The settings come from CMakeLists.txt. */
#include "app.h"
#include "board.h"
#include "broker.h"
#include "fedmote/fm_crc32.h"
#include "net.h"
#include "partition.h"

#define MAC_FIRST 0x02u /* locally administered */

static void stop(const char *why) {
  board_log(NULL, why);
  board_stop();
}

static uint32_t number(const uint8_t *bytes) {
  return ((uint32_t)bytes[0] << 24) | ((uint32_t)bytes[1] << 16) | ((uint32_t)bytes[2] << 8) | bytes[3];
}

/* The hardware address is made from the device's name, so that each device has another one. */
static void start_net(uint32_t seed, uint32_t id) {
  const net_config_t config = {
      .mac = {MAC_FIRST, 0u, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id},
      .address = (FEDMOTE_ADDRESS[0] != '\0') ? FEDMOTE_ADDRESS : NULL,
      .mask = FEDMOTE_NETMASK,
      .gateway = FEDMOTE_GATEWAY,
      .seed = seed,
  };
  if (!net_start(&config)) {
    stop("fault network");
  }
}

int main(void) {
  static app_t app;
  static app_platform_t platform;
  uint8_t random[8];
  board_start();
  if (!board_random(random, sizeof random)) {
    stop("fault no randomness");
  }
  platform.link.federation = FEDMOTE_FEDERATION;
  platform.device_id = FEDMOTE_DEVICE_ID;
  platform.link.username = (FEDMOTE_USER[0] != '\0') ? FEDMOTE_USER : NULL;
  platform.link.password = (FEDMOTE_USER[0] != '\0') ? FEDMOTE_PASSWORD : NULL;
  platform.examples = &partition;
  platform.seed = number(&random[0]);
  platform.storage = board_storage();
  platform.log = board_log;
  start_net(number(&random[4]), fm_crc32(0u, FEDMOTE_DEVICE_ID, sizeof FEDMOTE_DEVICE_ID - 1u));
  if (!broker_stream(&platform.stream)) {
    stop("fault broker address");
  }
  if (app_init(&app, &platform) != FM_OK) {
    board_stop();
  }
  for (;;) {
    const uint32_t net_ms = net_poll();
    const uint32_t app_ms = app_poll(&app, board_now_ms());
    board_wait((net_ms < app_ms) ? net_ms : app_ms);
  }
}
