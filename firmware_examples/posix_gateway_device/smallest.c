/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest whole device: smallest DEVICE HOST PORT, in the federation "points". main.c is the one to build on. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "examples.h"
#include "fedmote.h"
#include "fm_posix_tcp.h"

static const uint32_t widths[] = {2u, 8u, 2u};
static float parameters[42], base[42], arena[66]; /* fm_train_parameters(), fm_train_arena_floats() of the widths */
static uint8_t io[1024], rx[FM_MIN_BUFFER], tx[FM_MIN_BUFFER];

static uint32_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)(((uint64_t)now.tv_sec * 1000u) + ((uint64_t)now.tv_nsec / 1000000u));
}

int main(int argc, char **argv) {
  fm_tensor_t tensors[4];
  fm_trainer_config_t training = {
      .widths = widths, .layers = 2u, .tensors = tensors, .arena = arena, .arena_floats = 66u};
  fm_mqtt_config_t to_broker = {.federation = "points", .keep_alive_s = 60u, .buffer = io, .buffer_size = sizeof io};
  fm_client_config_t config = {.tensors = tensors, .tensor_count = 4u, .rx_buffer = rx, .rx_buffer_size = sizeof rx};
  fm_trainer_t trainer;
  fm_posix_tcp_t tcp;
  fm_mqtt_t mqtt;
  fm_client_t client;
  training.data = (fm_dataset_t){EXAMPLES, examples_read, NULL};
  fm_train_tensors(widths, 2u, parameters, base, tensors);
  const bool trains = fm_trainer_init(&trainer, &training) == FM_OK;
  fm_app_t app = fm_trainer_app(&trainer);
  config.app = &app;
  config.tx_buffer = tx, config.tx_buffer_size = sizeof tx;
  config.examples = EXAMPLES;
  config.seed = to_broker.seed = now_ms();
  config.device_id = to_broker.device_id = (argc == 4) ? argv[1] : "";
  fm_posix_tcp_init(&tcp, (argc == 4) ? argv[2] : "", (argc == 4) ? argv[3] : "", &to_broker.stream);
  if (!trains || (fm_mqtt_init(&mqtt, &to_broker, &config.link) != FM_OK) ||
      (fm_client_init(&client, &config) != FM_OK)) {
    return 2;
  }
  for (;;) {
    uint32_t wait_ms;
    (void)fm_client_poll(&client, now_ms(), &wait_ms);
    fm_posix_tcp_wait(&tcp, wait_ms);
  }
}
