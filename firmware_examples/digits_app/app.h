/* SPDX-License-Identifier: Apache-2.0 */
/* The application: a device that learns digits and remembers over a power cut. It knows no hardware: what it needs of a
 * board comes in as an app_hardware_t. Its link, serial or MQTT, is what the build takes for app_link.h. One app_t is
 * one device; there may be several. */
#ifndef APP_H
#define APP_H

#include <stdint.h>

#include "app_link.h"
#include "fedmote/fm_client.h"
#include "fedmote/fm_keep.h"
#include "fedmote/fm_train.h"

/* The model: MODEL_INPUTS -> MODEL_HIDDEN (ReLU) -> 10 classes. The build sets both. */
#define MODEL_CLASSES 10u
#define MODEL_LAYERS 2u
#define MODEL_PARAMETERS ((MODEL_INPUTS * MODEL_HIDDEN) + MODEL_HIDDEN + (MODEL_HIDDEN * MODEL_CLASSES) + MODEL_CLASSES)
#define MODEL_UNITS (MODEL_INPUTS + MODEL_HIDDEN + MODEL_CLASSES)
#define MODEL_ARENA (MODEL_PARAMETERS + (2u * MODEL_UNITS)) /* as fm_train_arena_floats() says */

/* The local examples, in flash. */
typedef struct {
  uint32_t count;
  const uint8_t *features; /* count rows of MODEL_INPUTS */
  const uint8_t *labels;   /* count */
  float scale;             /* a feature is its byte times this */
} app_examples_t;

/* What the application needs of a board. Everything must outlive the application. */
typedef struct {
  const char *device_id;
  const app_examples_t *examples;
  fm_stream_t stream; /* to the server or the broker */
  app_link_settings_t link;
  uint32_t seed;               /* new at each start where the board has any source of that */
  const fm_storage_t *storage; /* NULL: nothing outlives a reset */
  /* One event, in one line without its end; valid during the call. NULL: silence. */
  void (*log)(void *user, const char *line);
  void *log_user;
} app_hardware_t;

typedef struct {
  const app_hardware_t *hardware;
  fm_client_t client;
  app_link_t link;
  fm_keep_t keep;
  fm_trainer_t trainer;
  fm_app_t callbacks;
  fm_client_config_t client_config;
  fm_trainer_config_t trainer_config;
  uint32_t chunk; /* of the download, as logged last */
  bool refused;   /* as logged last */
  fm_tensor_t tensors[2u * MODEL_LAYERS];
  float parameters[MODEL_PARAMETERS];
  float base[MODEL_PARAMETERS];
  float arena[MODEL_ARENA];
  uint8_t rx[FM_MIN_BUFFER];
  uint8_t tx[FM_MIN_BUFFER];
} app_t;

/* Make the device ready, with what its storage remembers; logs `boot restored=<n> round=<r>`. Returns what the
 * library's init functions return. Storage that is too small or badly described is an error, not done without. */
fm_status_t app_init(app_t *app, const app_hardware_t *hardware);

/* Do a bounded piece of everything. Returns for how many milliseconds the caller may sleep if no byte arrives. */
uint32_t app_poll(app_t *app, uint32_t now_ms);

#endif
