/* SPDX-License-Identifier: Apache-2.0 */
/* The application: a device that learns to tell points apart, over MQTT, and remembers over a power cut. It knows no
 * operating system: what it needs of one comes in as an app_platform_t. */
#ifndef APP_H
#define APP_H

#include <stdint.h>

#include "fedmote/fm_client.h"
#include "fedmote/fm_keep.h"
#include "fedmote/fm_mqtt.h"
#include "fedmote/fm_train.h"

/* The model: 2 -> 8 (ReLU) -> 2. */
#define APP_LAYERS 2u
#define APP_PARAMETERS 42u /* 2 * 8 + 8, 8 * 2 + 2 */
#define APP_ARENA 66u      /* as fm_train_arena_floats() says: as many, and twice the 2 + 8 + 2 units */

typedef enum {
  APP_BOOT,     /* number: chunks, or an update, found in storage */
  APP_STATE,    /* number: fm_state_t */
  APP_SETTINGS, /* number: the fm_status_t with which they were refused */
  APP_REFUSED   /* by broker or server; number: FM_REFUSAL_REASON_*. The server's log says why */
} app_event_t;

/* What the application needs of a system. Everything must outlive the application. */
typedef struct {
  const char *device_id;
  const char *federation;
  const char *username;        /* to the broker; NULL: none */
  const char *password;        /* NULL: none */
  fm_stream_t broker;          /* TCP, or TLS over it */
  uint32_t seed;               /* random, new at each start */
  const fm_storage_t *storage; /* NULL: nothing outlives a reset */
  void (*log)(app_event_t event, uint32_t number, uint32_t round);
} app_platform_t;

typedef struct {
  const app_platform_t *platform;
  fm_client_t client;
  fm_mqtt_t mqtt;
  fm_keep_t keep;
  fm_trainer_t trainer;
  fm_app_t callbacks;
  fm_client_config_t client_config;
  fm_mqtt_config_t mqtt_config;
  fm_trainer_config_t trainer_config;
  bool refused; /* as logged last */
  fm_tensor_t tensors[2u * APP_LAYERS];
  float parameters[APP_PARAMETERS];
  float base[APP_PARAMETERS];
  float arena[APP_ARENA];
  uint8_t io[512];
  uint8_t rx[FM_MIN_BUFFER];
  uint8_t tx[FM_MIN_BUFFER];
} app_t;

/* Make the device ready, with what its storage remembers, and log APP_BOOT, or APP_SETTINGS and return what refused
 * them. */
fm_status_t app_init(app_t *app, const app_platform_t *platform);

/* Do a bounded piece of everything. Returns for how many milliseconds the caller may sleep if no byte arrives. */
uint32_t app_poll(app_t *app, uint32_t now_ms);

#endif
