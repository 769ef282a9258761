/* SPDX-License-Identifier: Apache-2.0 */
#include "anchors.h"
#include "board.h"
#include "broker.h"
#include "fm_bearssl.h"
#include "fm_lwip_tcp.h"
#include "line.h"

#define BUFFER_SIZE (2048u + 325u + 512u + 85u) /* for records of 2,048 bytes in and 512 bytes out */

static bool give_random(void *user, uint8_t *out, uint32_t size) {
  (void)user;
  return board_random(out, size);
}

static bool give_time(void *user, uint32_t *seconds) {
  (void)user;
  return board_unix_time(seconds);
}

static void log_failure(void *user, int error) {
  line_t line;
  line_begin(&line, "fault tls error=");
  line_number(&line, (uint32_t)error);
  board_log(user, line.text);
}

bool broker_stream(fm_stream_t *stream) {
  static uint8_t buffer[BUFFER_SIZE];
  static fm_lwip_tcp_t tcp;
  static fm_bearssl_t tls;
  static fm_bearssl_config_t config = {
      .host = FEDMOTE_BROKER_NAME,
      .anchors = anchors,
      .anchor_count = ANCHOR_COUNT,
      .random = give_random,
      .unix_time = give_time,
      .failed = log_failure,
      .buffer = buffer,
      .buffer_size = sizeof buffer,
  };
  ip_addr_t address;
  bool good = ipaddr_aton(FEDMOTE_BROKER_ADDRESS, &address) != 0;
  if (good) {
    fm_lwip_tcp_init(&tcp, &address, FEDMOTE_BROKER_PORT, &config.below);
    good = fm_bearssl_init(&tls, &config, stream) == FM_OK;
  }
  return good;
}
