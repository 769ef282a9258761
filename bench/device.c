/* SPDX-License-Identifier: Apache-2.0 */
/* One device without Python, for memory.py: the C client over MQTT with the C trainer and one example.
 *
 * Usage: device HOST PORT FEDERATION. Runs until standard input says something or ends. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fedmote/fm_client.h"
#include "fedmote/fm_mqtt.h"
#include "fedmote/fm_train.h"
#include "fm_posix_tcp.h"

#define LAYERS 2u
#define PARAMETERS 2410u
#define LONGEST_SLEEP_MS 1000u

static void read_example(void *user, uint32_t index, float *features, uint32_t *label) {
  (void)user;
  (void)index;
  for (uint32_t i = 0u; i < 64u; i++) {
    features[i] = 1.0f;
  }
  *label = 0u;
}

static uint32_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)(((uint64_t)now.tv_sec * 1000u) + ((uint64_t)now.tv_nsec / 1000000u));
}

int main(int argc, char **argv) {
  static const uint32_t widths[LAYERS + 1u] = {64u, 32u, 10u};
  static float parameters[PARAMETERS];
  static float base[PARAMETERS];
  static float arena[2u * PARAMETERS];
  static uint8_t io[512];
  static uint8_t rx[FM_MIN_BUFFER];
  static uint8_t tx[FM_MIN_BUFFER];
  static fm_tensor_t tensors[2u * LAYERS];
  static fm_client_t client;
  static fm_mqtt_t mqtt;
  static fm_posix_tcp_t tcp;
  static fm_trainer_t trainer;
  fm_trainer_config_t training = {0};
  fm_mqtt_config_t link = {0};
  fm_client_config_t config = {0};
  fm_app_t app;
  struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}};
  if (argc != 4) {
    (void)fprintf(stderr, "usage: device HOST PORT FEDERATION\n");
    return 2;
  }
  fm_train_tensors(widths, LAYERS, parameters, base, tensors);
  training.widths = widths;
  training.layers = LAYERS;
  training.tensors = tensors;
  training.data.count = 1u;
  training.data.read = read_example;
  training.arena = arena;
  training.arena_floats = sizeof arena / sizeof arena[0];
  training.seed = 1u;
  fm_posix_tcp_init(&tcp, argv[1], argv[2], &link.stream);
  link.federation = argv[3];
  link.device_id = "device-0";
  link.keep_alive_s = 30u;
  link.seed = 1u;
  link.buffer = io;
  link.buffer_size = sizeof io;
  config.device_id = link.device_id;
  config.tensors = tensors;
  config.tensor_count = 2u * LAYERS;
  config.app = &app;
  config.rx_buffer = rx;
  config.rx_buffer_size = sizeof rx;
  config.tx_buffer = tx;
  config.tx_buffer_size = sizeof tx;
  config.seed = 1u;
  config.examples = 1u;
  fm_status_t status = fm_trainer_init(&trainer, &training);
  app = fm_trainer_app(&trainer);
  status = (status == FM_OK) ? fm_mqtt_init(&mqtt, &link, &config.link) : status;
  status = (status == FM_OK) ? fm_client_init(&client, &config) : status;
  if (status != FM_OK) {
    (void)fprintf(stderr, "refused settings: status %d\n", (int)status);
    return 1;
  }
  do {
    uint32_t wait = 0u;
    (void)fm_client_poll(&client, now_ms(), &wait);
    fds[1].fd = tcp.fd;
    fds[1].events = (short)((tcp.connecting || tcp.full) ? (POLLIN | POLLOUT) : POLLIN);
    (void)poll(fds, 2u, (int)((wait < LONGEST_SLEEP_MS) ? wait : LONGEST_SLEEP_MS));
  } while (fds[0].revents == 0);
  fm_mqtt_close(&mqtt);
  return 0;
}
