/* SPDX-License-Identifier: Apache-2.0 */
/* The application: a device that learns from its own examples and remembers over a power cut. It knows no hardware and
 * no operating system: what it needs of them comes in as an app_platform_t. The build chooses its link, serial or MQTT,
 * by the folder of app_link.h, and what is learned by the folder of model.h. One app_t is one device; there may be
 * several. */
#ifndef APP_H
#define APP_H

#include <stdint.h>

#include "app_link.h"
#include "fedmote/fm_client.h"
#include "fedmote/fm_keep.h"
#include "fedmote/fm_train.h"
#include "model.h"

#define MODEL_LAYERS 2u
#define MODEL_PARAMETERS ((MODEL_INPUTS * MODEL_HIDDEN) + MODEL_HIDDEN + (MODEL_HIDDEN * MODEL_CLASSES) + MODEL_CLASSES)
#define MODEL_UNITS (MODEL_INPUTS + MODEL_HIDDEN + MODEL_CLASSES)
#define MODEL_ARENA (MODEL_PARAMETERS + (2u * MODEL_UNITS)) /* as fm_train_arena_floats() says */

/* What the application needs of a board or an operating system. Everything must outlive the application. */
typedef struct {
  const char *device_id;
  const fm_dataset_t *examples; /* the local data */
  fm_stream_t stream;           /* to the server or the broker */
  app_link_settings_t link;
  uint32_t seed;               /* new at each start where there is any source of that */
  const fm_storage_t *storage; /* NULL: nothing outlives a reset */
  /* One event, in one line without its end; valid during the call. NULL: nothing is logged. */
  void (*log)(void *user, const char *line);
  void *log_user;
} app_platform_t;

typedef struct {
  fm_trainer_t trainer; /* first, since the client hands back its address, which is the app_t's */
  const app_platform_t *platform;
  fm_client_t client;
  app_link_t link;
  fm_keep_t keep;
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

/* Make the device ready, with what its storage remembers, and log `boot restored=<n> round=<r>`. Returns what the
 * library's init functions return. Storage that is too small or badly described is an error. */
fm_status_t app_init(app_t *app, const app_platform_t *platform);

/* Do a bounded piece of everything. Returns for how many milliseconds the caller may sleep if no byte arrives. */
uint32_t app_poll(app_t *app, uint32_t now_ms);

#endif
