/* SPDX-License-Identifier: Apache-2.0 */
/* One device without Python, for memory.py: the C client over MQTT with the C trainer and one example.
 *
 * Usage: device HOST PORT FEDERATION. Runs until standard input has a byte or ends. */
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
#define DEVICE_ID "device-0"
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

/* One device with all its memory. Zero at first. */
typedef struct {
  float parameters[PARAMETERS];
  float base[PARAMETERS];
  float arena[2u * PARAMETERS];
  uint8_t io[512];
  uint8_t rx[FM_MIN_BUFFER];
  uint8_t tx[FM_MIN_BUFFER];
  fm_tensor_t tensors[2u * LAYERS];
  fm_client_t client;
  fm_mqtt_t mqtt;
  fm_posix_tcp_t tcp;
  fm_trainer_t trainer;
  fm_trainer_config_t training;
  fm_mqtt_config_t link;
  fm_client_config_t config;
  fm_app_t app;
} device_t;

static fm_status_t start_trainer(device_t *device) {
  static const uint32_t widths[LAYERS + 1u] = {64u, 32u, 10u};
  fm_trainer_config_t *training = &device->training;
  fm_train_tensors(widths, LAYERS, device->parameters, device->base, device->tensors);
  training->widths = widths;
  training->layers = LAYERS;
  training->tensors = device->tensors;
  training->data.count = 1u;
  training->data.read = read_example;
  training->arena = device->arena;
  training->arena_floats = sizeof device->arena / sizeof device->arena[0];
  training->seed = 1u;
  device->app = fm_trainer_app(&device->trainer);
  return fm_trainer_init(&device->trainer, training);
}

static fm_status_t start_link(device_t *device, const char *host, const char *port, const char *federation) {
  fm_mqtt_config_t *link = &device->link;
  fm_posix_tcp_init(&device->tcp, host, port, &link->stream);
  link->federation = federation;
  link->device_id = DEVICE_ID;
  link->keep_alive_s = 30u;
  link->seed = 1u;
  link->buffer = device->io;
  link->buffer_size = sizeof device->io;
  return fm_mqtt_init(&device->mqtt, link, &device->config.link);
}

static fm_status_t start_client(device_t *device) {
  fm_client_config_t *config = &device->config;
  config->device_id = DEVICE_ID;
  config->tensors = device->tensors;
  config->tensor_count = 2u * LAYERS;
  config->app = &device->app;
  config->rx_buffer = device->rx;
  config->rx_buffer_size = sizeof device->rx;
  config->tx_buffer = device->tx;
  config->tx_buffer_size = sizeof device->tx;
  config->seed = 1u;
  config->examples = 1u;
  return fm_client_init(&device->client, config);
}

static void run_until_input(device_t *device) {
  struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}};
  do {
    uint32_t wait = 0u;
    (void)fm_client_poll(&device->client, now_ms(), &wait);
    fds[1].fd = device->tcp.fd;
    fds[1].events = (short)((device->tcp.connecting || device->tcp.full) ? (POLLIN | POLLOUT) : POLLIN);
    (void)poll(fds, 2u, (int)((wait < LONGEST_SLEEP_MS) ? wait : LONGEST_SLEEP_MS));
  } while (fds[0].revents == 0);
}

int main(int argc, char **argv) {
  static device_t device;
  if (argc != 4) {
    (void)fprintf(stderr, "usage: device HOST PORT FEDERATION\n");
    return 2;
  }
  fm_status_t status = start_trainer(&device);
  status = (status == FM_OK) ? start_link(&device, argv[1], argv[2], argv[3]) : status;
  status = (status == FM_OK) ? start_client(&device) : status;
  if (status != FM_OK) {
    (void)fprintf(stderr, "refused settings: status %d\n", (int)status);
    return 1;
  }
  run_until_input(&device);
  fm_mqtt_close(&device.mqtt);
  return 0;
}
