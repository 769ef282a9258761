/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L
#include "device.h"

#include <poll.h>
#include <string.h>
#include <time.h>

#include "fedmote/fm_codec.h"

#define MOST_DEVICES_A_RUN 4096
#define WINDOW_BITS (10u * FM_SERIAL_TX_BUFFER * FM_SERIAL_WINDOW) /* on the line, with start and stop bits */
#define MOST_RETRANSMIT_MS 8000u

uint32_t fmb_now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

/* ---- the application: the C trainer, or Python ---- */

static void read_example(void *user, uint32_t index, float *features, uint32_t *label) {
  const fmb_settings_t *settings = user;
  const uint32_t width = settings->widths[0];
  (void)memcpy(features, &settings->features[(size_t)index * width], width * sizeof *features);
  *label = settings->labels[index];
}

static fm_status_t native_begin(void *user, const fm_plan_t *plan, fm_work_t *work) {
  fmb_device_t *device = user;
  if ((device->step_limits != NULL) && (plan->round < device->limit_count)) {
    device->step_limit = device->step_limits[plan->round];
  }
  return fm_trainer_begin(&device->trainer, plan, work);
}

static fm_status_t native_step(void *user, fm_work_t *work) {
  fmb_device_t *device = user;
  const bool stalled = (device->step_limit != 0u) && (work->steps >= device->step_limit);
  if (stalled && device->finish_at_limit) {
    fm_client_finish_early(&device->client);
  }
  return stalled ? FM_AGAIN : fm_trainer_step(&device->trainer, work);
}

static fm_status_t native_evaluate(void *user, fm_work_t *work) {
  fmb_device_t *device = user;
  return fm_trainer_evaluate(&device->trainer, work);
}

static fm_status_t python_begin(void *user, const fm_plan_t *plan, fm_work_t *work) {
  fmb_device_t *device = user;
  return (fm_status_t)fmb_python_begin(device->settings.python, plan, work);
}

static fm_status_t python_step(void *user, fm_work_t *work) {
  fmb_device_t *device = user;
  return (fm_status_t)fmb_python_step(device->settings.python, work);
}

static fm_status_t python_evaluate(void *user, fm_work_t *work) {
  fmb_device_t *device = user;
  return (fm_status_t)fmb_python_evaluate(device->settings.python, work);
}

static fm_status_t native_query(void *user, const fm_plan_t *plan, fm_histogram_t *answer) {
  fmb_device_t *device = user;
  return fm_trainer_query(&device->trainer, plan, answer);
}

static fm_status_t python_query(void *user, const fm_plan_t *plan, fm_histogram_t *answer) {
  fmb_device_t *device = user;
  return (fm_status_t)fmb_python_query(device->settings.python, plan, answer);
}

/* ---- putting it together ---- */

static fm_status_t init_trainer(fmb_device_t *device) {
  const fmb_settings_t *settings = &device->settings;
  fm_status_t status = FM_OK;
  if (settings->layers != 0u) {
    fm_trainer_config_t *config = &device->trainer_config;
    if (settings->layers > FM_TRAIN_MAX_LAYERS) {
      return FM_ERR_ARGUMENT;
    }
    device->tensors = device->trained;
    fm_train_tensors(settings->widths, settings->layers, settings->parameters, settings->base, device->tensors);
    device->tensor_count = 2u * settings->layers;
    config->widths = settings->widths;
    config->layers = settings->layers;
    config->tensors = device->tensors;
    config->data.count = settings->examples;
    config->data.read = read_example;
    config->data.user = &device->settings;
    config->seed = settings->seed;
    config->arena = settings->arena;
    config->arena_floats = settings->arena_floats;
    status = fm_trainer_init(&device->trainer, config);
    device->app.work_begin = native_begin;
    device->app.train_step = native_step;
    device->app.evaluate_step = native_evaluate;
    device->app.query_step = native_query;
  } else {
    device->app.work_begin = python_begin;
    device->app.train_step = python_step;
    device->app.evaluate_step = python_evaluate;
    device->app.query_step = python_query;
  }
  device->app.user = device;
  return status;
}

static fm_status_t init_mqtt(fmb_device_t *device, fm_link_t *link) {
  const fmb_settings_t *settings = &device->settings;
  fm_mqtt_config_t *config = &device->mqtt_config;
  fm_message_t away;
  uint32_t size = 0u;
  (void)memset(&away, 0, sizeof away);
  away.type = FM_BODY_DEVICE_STATE;
  away.body.device_state.online = false;
  away.body.device_state.battery = 255u;
  fm_status_t status = fm_message_encode(&away, device->will, sizeof device->will, &size);
  fm_posix_tcp_init(&device->tcp, settings->host, settings->port, &device->gate.below);
  config->stream = fmb_gate_stream(&device->gate);
  config->federation = settings->federation;
  config->device_id = settings->device_id;
  config->username = (settings->username[0] != '\0') ? settings->username : NULL;
  config->password = (settings->password[0] != '\0') ? settings->password : NULL;
  config->will = device->will;
  config->will_size = (uint16_t)size;
  config->keep_alive_s = (uint16_t)settings->keep_alive_s;
  config->seed = settings->seed;
  config->backoff_min_ms = settings->backoff_min_ms;
  config->backoff_max_ms = settings->backoff_max_ms;
  config->buffer = device->io;
  config->buffer_size = sizeof device->io;
  return (status == FM_OK) ? fm_mqtt_init(&device->mqtt, config, link) : status;
}

static fm_status_t init_serial(fmb_device_t *device, fm_link_t *link) {
  const fmb_settings_t *settings = &device->settings;
  fm_serial_config_t *config = &device->serial_config;
  fm_posix_tty_init(&device->tty, settings->host, settings->baud, -1, &device->gate.below);
  config->stream = fmb_gate_stream(&device->gate);
  config->seed = settings->seed;
  config->retransmit_ms = 50u + (WINDOW_BITS * 1000u / settings->baud);
  if (config->retransmit_ms > MOST_RETRANSMIT_MS) {
    config->retransmit_ms = MOST_RETRANSMIT_MS;
  }
  config->keep_alive_ms = 1000u * settings->keep_alive_s;
  config->buffer = device->io;
  config->buffer_size = sizeof device->io;
  return fm_serial_init(&device->serial, config, link);
}

int fmb_device_init(fmb_device_t *device) {
  fm_client_config_t *config = &device->config;
  const fmb_settings_t *settings = &device->settings;
  fm_status_t status = init_trainer(device);
  device->tcp.fd = -1;
  device->tty.fd = -1;
  if ((status == FM_OK) && settings->memory) {
    device->mailbox.fetch_by_request = settings->fetch_by_request;
    config->link = fmb_mailbox_link(&device->mailbox);
    fmb_mailbox_connect(&device->mailbox);
  } else if ((status == FM_OK) && (settings->baud != 0u)) {
    status = init_serial(device, &config->link);
  } else if (status == FM_OK) {
    status = init_mqtt(device, &config->link);
  } else {
    /* refused */
  }
  if ((status == FM_OK) && (settings->flash != NULL)) {
    fmb_flash_storage(settings->flash, &device->storage);
    status = fm_keep_init(&device->keep, &device->storage, &config->keeper);
  }
  if (status == FM_OK) {
    config->device_id = settings->device_id;
    config->tensors = device->tensors;
    config->tensor_count = device->tensor_count;
    config->app = &device->app;
    config->rx_buffer = device->rx;
    config->rx_buffer_size = sizeof device->rx;
    config->tx_buffer = device->tx;
    config->tx_buffer_size = sizeof device->tx;
    config->seed = settings->seed;
    config->examples = settings->examples;
    config->encodings = settings->encodings;
    config->free_memory_kib = settings->free_memory_kib;
    config->prefer_delta = settings->prefer_delta;
    config->retry_min_ms = settings->retry_min_ms;
    config->retry_max_ms = settings->retry_max_ms;
    status = fm_client_init(&device->client, config);
  }
  return status;
}

void fmb_device_cut(fmb_device_t *device) {
  if (device->settings.memory) {
    fmb_mailbox_disconnect(&device->mailbox);
  } else {
    fmb_gate_cut(&device->gate);
  }
}

void fmb_device_restore(fmb_device_t *device) {
  if (device->settings.memory) {
    fmb_mailbox_connect(&device->mailbox);
  } else {
    device->gate.away = false;
  }
}

void fmb_device_close(fmb_device_t *device) {
  if (device->settings.memory) {
    fmb_mailbox_disconnect(&device->mailbox);
  } else if (device->settings.baud != 0u) {
    fm_serial_close(&device->serial);
  } else {
    fm_mqtt_close(&device->mqtt);
  }
}

uint32_t fmb_device_poll(fmb_device_t *device, uint32_t now_ms) {
  uint32_t wait_ms = 0u;
  (void)fm_client_poll(&device->client, now_ms, &wait_ms);
  return wait_ms;
}

uint32_t fmb_device_deliver(fmb_device_t *device, const uint8_t *message, uint32_t size, uint32_t now_ms) {
  uint32_t wait_ms;
  if (device->mailbox.connection != 0u) {
    fm_message_t decoded;
    const bool valid = fm_message_decode(message, size, size, &decoded) == FM_OK;
    if (valid && (decoded.type == FM_BODY_MODEL_CHUNK)) {
      device->mailbox.fetching = false; /* unless the client asks for the next in this poll */
    }
    device->mailbox.in = message;
    device->mailbox.in_size = size;
  }
  wait_ms = fmb_device_poll(device, now_ms);
  device->mailbox.in = NULL; /* lent for this call only */
  return wait_ms;
}

int fmb_device_fd(const fmb_device_t *device, bool *writable) {
  *writable = device->tcp.connecting || device->tcp.full || device->tty.full;
  return (device->settings.baud != 0u) ? device->tty.fd : device->tcp.fd;
}

uint32_t fmb_device_layout_crc32(const fmb_device_t *device) {
  return fm_tensors_layout_crc32(device->tensors, device->tensor_count);
}

/* ---- many devices in one thread ---- */

/* Poll each device that is due: its wait is over or its descriptor is ready. Returns the shortest wait of all devices.
 */
static uint32_t poll_due(fmb_device_t **devices, uint32_t count, const struct pollfd *ready, uint32_t *due_ms) {
  const uint32_t now = fmb_now_ms();
  uint32_t shortest = 60000u;
  for (uint32_t i = 0u; i < count; i++) {
    const int32_t left = (int32_t)(due_ms[i] - now);
    uint32_t wait = (left > 0) ? (uint32_t)left : 0u;
    if ((wait == 0u) || (ready[i].revents != 0)) {
      (void)fm_client_poll(&devices[i]->client, now, &wait);
      due_ms[i] = now + wait;
    }
    shortest = (wait < shortest) ? wait : shortest;
  }
  return shortest;
}

void fmb_fleet_run(fmb_device_t **devices, uint32_t count, uint32_t run_ms) {
  static _Thread_local struct pollfd fds[MOST_DEVICES_A_RUN];
  static _Thread_local uint32_t due_ms[MOST_DEVICES_A_RUN];
  const uint32_t used = (count < MOST_DEVICES_A_RUN) ? count : MOST_DEVICES_A_RUN;
  const uint32_t started = fmb_now_ms();
  uint32_t elapsed = 0u;
  for (uint32_t i = 0u; i < used; i++) {
    fds[i].revents = 0;
    due_ms[i] = started; /* Python may have changed anything: ask every device once */
  }
  do {
    uint32_t wait = poll_due(devices, used, fds, due_ms);
    elapsed = fmb_now_ms() - started;
    wait = (elapsed >= run_ms) ? 0u : (((run_ms - elapsed) < wait) ? (run_ms - elapsed) : wait);
    for (uint32_t i = 0u; i < used; i++) {
      bool writable = false;
      fds[i].fd = fmb_device_fd(devices[i], &writable);
      fds[i].events = (short)(writable ? (POLLIN | POLLOUT) : POLLIN);
      fds[i].revents = 0;
    }
    (void)poll(fds, used, (int)wait);
    elapsed = fmb_now_ms() - started;
  } while (elapsed < run_ms);
}
