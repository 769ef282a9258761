/* SPDX-License-Identifier: Apache-2.0 */
#include "app.h"

#include <string.h>

#include "examples.h"
#include "fedmote/fm_crc32.h"

#define LONGEST_SLEEP_MS 1000u

static const uint32_t widths[APP_LAYERS + 1u] = {2u, 8u, 2u};

/* ---- what the client asks for ---- */

static fm_status_t work_begin(void *user, const fm_plan_t *plan, fm_work_t *work) {
  app_t *app = (app_t *)user;
  return fm_trainer_begin(&app->trainer, plan, work);
}

static fm_status_t train_step(void *user, fm_work_t *work) {
  app_t *app = (app_t *)user;
  return fm_trainer_step(&app->trainer, work);
}

static fm_status_t evaluate_step(void *user, fm_work_t *work) {
  app_t *app = (app_t *)user;
  return fm_trainer_evaluate(&app->trainer, work);
}

static void state_changed(void *user, uint8_t state) {
  const app_t *app = (const app_t *)user;
  app->platform->log(APP_STATE, state, app->client.plan.round);
}

/* ---- putting it together ---- */

static fm_status_t init_trainer(app_t *app) {
  const char *id = app->platform->device_id;
  fm_trainer_config_t *config = &app->trainer_config;
  fm_train_tensors(widths, APP_LAYERS, app->parameters, app->base, app->tensors);
  config->widths = widths;
  config->layers = APP_LAYERS;
  config->tensors = app->tensors;
  config->data.count = EXAMPLES;
  config->data.read = examples_read;
  config->seed = fm_crc32(0u, id, (uint32_t)strlen(id)); /* the same when a training starts over */
  config->arena = app->arena;
  config->arena_floats = APP_ARENA;
  app->callbacks.user = app;
  app->callbacks.work_begin = work_begin;
  app->callbacks.train_step = train_step;
  app->callbacks.evaluate_step = evaluate_step;
  app->callbacks.state_changed = state_changed;
  return fm_trainer_init(&app->trainer, config);
}

static fm_status_t init_link(app_t *app) {
  fm_mqtt_config_t *config = &app->mqtt_config;
  config->stream = app->platform->broker;
  config->federation = app->platform->federation;
  config->device_id = app->platform->device_id;
  config->username = app->platform->username;
  config->password = app->platform->password;
  config->keep_alive_s = 60u;
  config->seed = app->platform->seed;
  config->buffer = app->io;
  config->buffer_size = sizeof app->io;
  return fm_mqtt_init(&app->mqtt, config, &app->client_config.link);
}

static fm_status_t init_client(app_t *app) {
  fm_client_config_t *config = &app->client_config;
  config->device_id = app->platform->device_id;
  config->tensors = app->tensors;
  config->tensor_count = 2u * APP_LAYERS;
  config->app = &app->callbacks;
  config->rx_buffer = app->rx;
  config->rx_buffer_size = sizeof app->rx;
  config->tx_buffer = app->tx;
  config->tx_buffer_size = sizeof app->tx;
  config->seed = app->platform->seed;
  config->examples = EXAMPLES;
  return fm_client_init(&app->client, config);
}

fm_status_t app_init(app_t *app, const app_platform_t *platform) {
  fm_status_t status;
  (void)memset(app, 0, sizeof *app);
  app->platform = platform;
  status = init_trainer(app);
  if (status == FM_OK) {
    status = init_link(app);
  }
  if ((status == FM_OK) && (platform->storage != NULL)) {
    status = fm_keep_init(&app->keep, platform->storage, &app->client_config.keeper);
  }
  if (status == FM_OK) {
    status = init_client(app);
  }
  if (status == FM_OK) {
    platform->log(APP_BOOT, app->keep.restored, app->client.plan.round);
  } else {
    platform->log(APP_SETTINGS, (uint32_t)status, 0u);
  }
  return status;
}

uint32_t app_poll(app_t *app, uint32_t now_ms) {
  uint32_t wait_ms = LONGEST_SLEEP_MS;
  const bool refused = fm_client_poll(&app->client, now_ms, &wait_ms) == FM_ERR_REFUSED;
  if (refused && !app->refused) {
    app->platform->log(APP_REFUSED, app->client.refusal, 0u);
  }
  app->refused = refused;
  return (wait_ms < LONGEST_SLEEP_MS) ? wait_ms : LONGEST_SLEEP_MS;
}
