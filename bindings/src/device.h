/* SPDX-License-Identifier: Apache-2.0 */
/* A desktop device in one struct: the real client, its link and stream, and the C trainer or callbacks into Python. */
#ifndef FMB_DEVICE_H
#define FMB_DEVICE_H

#include "fedmote/fm_client.h"
#include "fedmote/fm_mqtt.h"
#include "fedmote/fm_serial.h"
#include "fedmote/fm_train.h"
#include "fm_posix_tcp.h"
#include "flash.h"
#include "fm_posix_tty.h"
#include "memory.h"

#define FMB_IO_SIZE 32768
#define FMB_TEXT_SIZE 256

enum { FMB_MAX_TENSORS = FM_MAX_TENSORS, FMB_MAX_TENSOR_NAME = FM_MAX_TENSOR_NAME }; /* Python sees no macros */

/* Settings, which Python fills in before fmb_device_init(). The arrays belong to Python and outlive the device. */
typedef struct {
  char device_id[64];
  char federation[64];
  char host[FMB_TEXT_SIZE];
  char port[16];
  uint32_t baud;                /* not 0: use a serial line, whose path is `host`, instead of MQTT */
  char username[FMB_TEXT_SIZE]; /* empty: none */
  char password[FMB_TEXT_SIZE];
  uint32_t widths[FM_TRAIN_MAX_LAYERS + 1];
  uint32_t layers; /* 0: trained by Python, through `tensors` */
  float *parameters;
  float *base;
  const float *features; /* [examples][widths[0]] */
  const uint8_t *labels;
  uint32_t examples;
  uint32_t seed;
  uint32_t keep_alive_s;
  uint32_t backoff_min_ms;
  uint32_t backoff_max_ms;
  uint32_t retry_min_ms;
  uint32_t retry_max_ms;
  uint32_t free_memory_kib;
  uint8_t encodings;
  bool prefer_delta;
  bool memory;           /* use a link in memory, whose other end is the caller, instead of MQTT */
  bool fetch_by_request; /* the link in memory has no fetch() */
  float *arena;
  uint32_t arena_floats;
  fmb_flash_t *flash; /* storage of model, job and update; NULL: nothing is kept */
  void *python;       /* handle for the callbacks of a device that Python trains */
} fmb_settings_t;

typedef struct {
  fm_client_t client;
  fm_mqtt_t mqtt;
  fm_serial_t serial;
  fmb_settings_t settings;
  /* Steps of the present plan after which training waits for the closing notice, as on a slow device; 0: no limit. */
  uint32_t step_limit;
  const uint32_t *step_limits; /* step_limit of each round, [limit_count], read when its work begins; NULL: it stays */
  uint32_t limit_count;
  bool finish_at_limit; /* send the update at the limit instead of waiting for the notice */
  fm_tensor_t *tensors; /* [tensor_count]; Python's, or those of the C trainer */
  uint32_t tensor_count;
  fm_tensor_t trained[2 * FM_TRAIN_MAX_LAYERS];
  fm_client_config_t config;
  fm_app_t app;
  fm_mqtt_config_t mqtt_config;
  fm_serial_config_t serial_config;
  fm_posix_tcp_t tcp;
  fm_posix_tty_t tty;
  fmb_gate_t gate;
  fmb_mailbox_t mailbox;
  fm_keep_t keep;
  fm_storage_t storage;
  fm_trainer_t trainer;
  fm_trainer_config_t trainer_config;
  uint8_t will[64];
  uint8_t rx[FM_MIN_BUFFER];
  uint8_t tx[FM_MIN_BUFFER];
  uint8_t io[FMB_IO_SIZE];
} fmb_device_t;

/* Put the parts together. A device that Python trains has its tensors already. Returns an fm_status_t. */
int fmb_device_init(fmb_device_t *device);
/* Break the link as a tunnel does (no DISCONNECT), until fmb_device_restore(). */
void fmb_device_cut(fmb_device_t *device);
void fmb_device_restore(fmb_device_t *device);
/* Tell the peer and close. */
void fmb_device_close(fmb_device_t *device);
/* Poll the client once. Returns how many milliseconds it may rest. */
uint32_t fmb_device_poll(fmb_device_t *device, uint32_t now_ms);
/* The same, with a message to a device whose link is in memory. The message is lost while the link is cut. */
uint32_t fmb_device_deliver(fmb_device_t *device, const uint8_t *message, uint32_t size, uint32_t now_ms);
/* Return the descriptor to wait on, -1 if there is none now. *writable: wait for writability, too. */
int fmb_device_fd(const fmb_device_t *device, bool *writable);

/* Poll all devices for `run_ms`, and sleep while none has anything to do. */
void fmb_fleet_run(fmb_device_t **devices, uint32_t count, uint32_t run_ms);
uint32_t fmb_now_ms(void);

/* Return the CRC-32 of the layout, as in Hello. */
uint32_t fmb_device_layout_crc32(const fmb_device_t *device);

/* Implemented in Python, for a device that Python trains. They return an fm_status_t. */
extern int fmb_python_begin(void *python, const fm_plan_t *plan, fm_work_t *work);
extern int fmb_python_step(void *python, fm_work_t *work);
extern int fmb_python_evaluate(void *python, fm_work_t *work);
extern int fmb_python_query(void *python, const fm_plan_t *plan, fm_histogram_t *answer);

#endif
