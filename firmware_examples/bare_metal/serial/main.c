/* SPDX-License-Identifier: Apache-2.0 */
#include "app.h"
#include "board.h"
#include "partition.h"

int main(void) {
  static app_t app;
  static app_platform_t platform;
  board_start(&platform);
  platform.device_id = FEDMOTE_DEVICE_ID;
  platform.examples = &partition;
  if (app_init(&app, &platform) != FM_OK) {
    board_stop();
  }
  for (;;) {
    const uint32_t wait_ms = app_poll(&app, board_now_ms());
    board_wait(wait_ms);
  }
}
