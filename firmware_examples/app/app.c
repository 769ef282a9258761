/* SPDX-License-Identifier: Apache-2.0 */
#include "app.h"

#include <string.h>

#include "fedmote/fm_crc32.h"
#include "line.h"

static const uint32_t widths[MODEL_LAYERS + 1u] = {MODEL_INPUTS, MODEL_HIDDEN, MODEL_CLASSES};

/* ---- the log ---- */

static void log_line(const app_t *app, const line_t *line) {
  const app_platform_t *platform = app->platform;
  if (platform->log != NULL) {
    platform->log(platform->log_user, line->text);
  }
}

static void log_state(const app_t *app, uint8_t state) {
  static const char *const names[FM_STATE_REFUSED + 1] = {
      "offline", "greeting", "idle",      "downloading", "checking", "working",
      "sealing", "offering", "uploading", "confirming",  "holding",  "refused",
  };
  line_t line;
  line_begin(&line, "state ");
  line_text(&line, (state <= (uint8_t)FM_STATE_REFUSED) ? names[state] : "unknown");
  line_text(&line, " round=");
  line_number(&line, app->client.plan.round);
  log_line(app, &line);
}

static void log_chunk(app_t *app) {
  if ((fm_client_state(&app->client) == FM_STATE_DOWNLOADING) && (app->client.next_chunk != app->chunk)) {
    line_t line;
    app->chunk = app->client.next_chunk;
    line_begin(&line, "chunk ");
    line_number(&line, app->chunk);
    log_line(app, &line);
  }
}

/* Log a refusal by the broker or the server once. The server's log says why: often the tensors are not the
 * federation's.
 */
static void log_refusal(app_t *app, bool refused) {
  if (refused && !app->refused) {
    line_t line;
    line_begin(&line, "refused reason=");
    line_number(&line, app->client.refusal);
    log_line(app, &line);
  }
  app->refused = refused;
}

/* ---- called by the client ---- */

static void state_changed(void *user, uint8_t state) {
  app_t *app = (app_t *)user;
  log_state(app, state);
  app->chunk = 0u;
}

/* ---- putting it together ---- */

/* Return a number that differs from device to device. */
static uint32_t id_number(const app_platform_t *platform) {
  return fm_crc32(0u, platform->device_id, (uint32_t)strlen(platform->device_id));
}

static fm_status_t init_trainer(app_t *app) {
  fm_trainer_config_t *config = &app->trainer_config;
  fm_train_tensors(widths, MODEL_LAYERS, app->parameters, app->base, app->tensors);
  config->widths = widths;
  config->layers = MODEL_LAYERS;
  config->tensors = app->tensors;
  config->data = *app->platform->examples;
  config->seed = id_number(app->platform); /* a training that starts over after a power cut is the same */
  config->arena = app->arena;
  config->arena_floats = MODEL_ARENA;
  app->callbacks.user = &app->trainer;
  app->callbacks.work_begin = fm_trainer_begin;
  app->callbacks.train_step = fm_trainer_step;
  app->callbacks.evaluate_step = fm_trainer_evaluate;
  app->callbacks.state_changed = state_changed;
  return fm_trainer_init(&app->trainer, config);
}

static fm_status_t init_link(app_t *app) {
  const app_platform_t *platform = app->platform;
  return app_link_init(&app->link, &platform->link, &platform->stream, platform->device_id,
                       id_number(platform) ^ platform->seed, &app->client_config.link);
}

static fm_status_t init_client(app_t *app) {
  fm_client_config_t *config = &app->client_config;
  config->device_id = app->platform->device_id;
  config->tensors = app->tensors;
  config->tensor_count = 2u * MODEL_LAYERS;
  config->app = &app->callbacks;
  config->rx_buffer = app->rx;
  config->rx_buffer_size = sizeof app->rx;
  config->tx_buffer = app->tx;
  config->tx_buffer_size = sizeof app->tx;
  config->seed = id_number(app->platform) ^ app->platform->seed;
  config->examples = app->platform->examples->count;
  config->encodings = MODEL_ENCODINGS;
  config->prefer_delta = MODEL_PREFER_DELTA;
  return fm_client_init(&app->client, config);
}

fm_status_t app_init(app_t *app, const app_platform_t *platform) {
  fm_status_t status;
  line_t line;
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
    line_begin(&line, "boot restored=");
    line_number(&line, app->keep.restored);
    line_text(&line, " round=");
    line_number(&line, app->client.plan.round);
  } else {
    line_begin(&line, "fault settings status=");
    line_number(&line, (uint32_t)status);
  }
  log_line(app, &line);
  return status;
}

uint32_t app_poll(app_t *app, uint32_t now_ms) {
  uint32_t wait_ms = 0u;
  const fm_status_t status = fm_client_poll(&app->client, now_ms, &wait_ms);
  log_refusal(app, status == FM_ERR_REFUSED);
  log_chunk(app);
  return wait_ms;
}
