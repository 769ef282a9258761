/* SPDX-License-Identifier: Apache-2.0 */
/* A device on Linux or another POSIX system: a gateway, a car's head unit. See README.md. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "examples.h"
#include "fedmote.h"
#include "fm_posix_tcp.h"
#include "fm_posix_tty.h"

#define LAYERS 2u
#define PARAMETERS 42u /* 2 * 8 + 8, 8 * 2 + 2 */
#define ARENA 66u      /* fm_train_arena_floats(): as many, and twice the 2 + 8 + 2 units */
#define LONGEST_SLEEP_MS 1000u

static volatile sig_atomic_t stopped;
static bool refused;
static const uint32_t widths[LAYERS + 1u] = {2u, 8u, 2u};
static fm_tensor_t tensors[2u * LAYERS];
static fm_trainer_t trainer;
static fm_mqtt_t mqtt;
static fm_serial_t serial;
static fm_posix_tcp_t tcp;
static fm_posix_tty_t tty;
static fm_client_t client;

static void stop(int number) { stopped = number; }

static uint32_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)(((uint64_t)now.tv_sec * 1000u) + ((uint64_t)now.tv_nsec / 1000000u));
}

/* Different at each start: connection tags and the times of retries depend on it. */
static uint32_t seed(void) { return now_ms() ^ ((uint32_t)getpid() << 16) ^ (uint32_t)time(NULL); }

static void state_changed(void *user, uint8_t state) {
  (void)user;
  (void)printf("state %u round %lu\n", (unsigned)state, (unsigned long)client.plan.round);
  (void)fflush(stdout);
}

static fm_status_t start_trainer(const char *device_id, fm_app_t *app) {
  static float parameters[PARAMETERS], base[PARAMETERS], arena[ARENA];
  static fm_trainer_config_t config = {.widths = widths, .layers = LAYERS, .tensors = tensors};
  config.data.count = EXAMPLES;
  config.data.read = examples_read;
  config.seed = fm_crc32(0u, device_id, (uint32_t)strlen(device_id)); /* an order of examples of this device's own */
  config.arena = arena;
  config.arena_floats = ARENA;
  fm_train_tensors(widths, LAYERS, parameters, base, tensors);
  const fm_status_t status = fm_trainer_init(&trainer, &config);
  *app = fm_trainer_app(&trainer);
  app->state_changed = state_changed;
  return status;
}

static fm_status_t start_link(char **argv, bool over_mqtt, fm_link_t *link) {
  static uint8_t io[1024];
  static fm_mqtt_config_t on_tcp = {.keep_alive_s = 60u, .buffer = io, .buffer_size = sizeof io};
  static fm_serial_config_t on_tty = {.buffer = io, .buffer_size = sizeof io};
  fm_status_t status;
  if (over_mqtt) {
    fm_posix_tcp_init(&tcp, argv[3], argv[4], &on_tcp.stream);
    on_tcp.device_id = argv[1];
    on_tcp.federation = argv[2];
    on_tcp.username = getenv("FEDMOTE_USER");
    on_tcp.password = getenv("FEDMOTE_PASSWORD");
    on_tcp.seed = seed();
    status = fm_mqtt_init(&mqtt, &on_tcp, link);
  } else {
    fm_posix_tty_init(&tty, argv[2], 115200u, -1, &on_tty.stream);
    on_tty.seed = seed();
    status = fm_serial_init(&serial, &on_tty, link);
  }
  return status;
}

static fm_status_t start(char **argv, bool over_mqtt) {
  static uint8_t rx[FM_MIN_BUFFER], tx[FM_MIN_BUFFER];
  static fm_app_t app;
  static fm_client_config_t config = {
      .tensors = tensors, .tensor_count = 2u * LAYERS, .app = &app, .examples = EXAMPLES};
  fm_status_t status = start_trainer(argv[1], &app);
  config.device_id = argv[1];
  config.rx_buffer = rx;
  config.rx_buffer_size = sizeof rx;
  config.tx_buffer = tx;
  config.tx_buffer_size = sizeof tx;
  config.seed = seed();
  status = (status == FM_OK) ? start_link(argv, over_mqtt, &config.link) : status;
  return (status == FM_OK) ? fm_client_init(&client, &config) : status;
}

static void wait_for_line(bool over_mqtt, uint32_t wait_ms) {
  const bool writable = over_mqtt ? (tcp.connecting || tcp.full) : tty.full;
  struct pollfd line = {.fd = over_mqtt ? tcp.fd : tty.fd, .events = (short)(writable ? (POLLIN | POLLOUT) : POLLIN)};
  (void)poll(&line, 1u, (int)wait_ms);
}

int main(int argc, char **argv) {
  const bool over_mqtt = argc == 5;
  if (!over_mqtt && (argc != 3)) {
    (void)fprintf(stderr, "usage: %s DEVICE FEDERATION HOST PORT, or %s DEVICE TTY\n", argv[0], argv[0]);
    return 2;
  }
  const fm_status_t status = start(argv, over_mqtt);
  if (status != FM_OK) {
    (void)fprintf(stderr, "refused settings: status %d\n", (int)status);
    return 1;
  }
  (void)signal(SIGINT, stop);
  (void)signal(SIGTERM, stop);
  while (stopped == 0) {
    uint32_t wait = LONGEST_SLEEP_MS;
    const bool is_refused = fm_client_poll(&client, now_ms(), &wait) == FM_ERR_REFUSED;
    if (is_refused && !refused) {
      (void)fprintf(stderr, "refused by broker or server, reason %u: see the server's log\n", (unsigned)client.refusal);
    }
    refused = is_refused;
    wait_for_line(over_mqtt, (wait < LONGEST_SLEEP_MS) ? wait : LONGEST_SLEEP_MS);
  }
  if (over_mqtt) {
    fm_mqtt_close(&mqtt);
  } else {
    fm_serial_close(&serial);
  }
  return 0;
}
