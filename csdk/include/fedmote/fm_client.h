/* SPDX-License-Identifier: Apache-2.0 */
/* The device: one struct, one entry point. fm_client_init() once, then fm_client_poll() for ever.
 *
 *   offline -> greeting -> idle -> downloading -> checking -> working -> sealing -> offering -> uploading -> holding -> idle
 *
 * The client talks when the link is up, works cooperatively (one piece of training per poll), and keeps its update until the
 * server's commit. It can lose the link anywhere: transfers go on where they broke.
 */
#ifndef FM_CLIENT_H
#define FM_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_config.h"
#include "fedmote/fm_link.h"
#include "fedmote/fm_status.h"
#include "fedmote/fm_tensor.h"
#include "fedmote/fm_wire.h"

#define FM_VERSION 0x00000100u /* major << 16 | minor << 8 | patch: 0.1.0 */

/* What the training (or evaluation) of the present plan has come to. The application writes it, the client reports it. */
typedef struct {
  uint32_t steps;         /* mini-batches done */
  uint32_t planned_steps; /* mini-batches a full update takes */
  uint32_t examples;      /* distinct local examples seen so far: the update's weight */
  uint32_t correct;       /* evaluate: classified correctly */
  float loss;             /* mean so far; 0 when unknown. The core passes it on and never computes with it */
  uint32_t covered;       /* bit t: tensor t of the table was trained. Set to all before work_begin */
} fm_work_t;

/* The application's side. `user` is handed back. None of these may block for longer than the application can do without poll, or call the client (but for what is
 * said at each function). */
typedef struct {
  void *user;
  /* The model is complete and checked: prepare to work on `plan` (valid during the call; copy what is needed). Called again if the
   * same plan is started over. FM_OK: go. FM_ERR_TRAINING: withdraw. NULL: nothing to prepare. */
  fm_status_t (*work_begin)(void *user, const fm_plan_t *plan, fm_work_t *work);
  /* One bounded piece of training on tensors in place. FM_OK: more. FM_AGAIN: nothing to do right now, more later. FM_DONE: complete. FM_ERR_TRAINING: withdraw. */
  fm_status_t (*train_step)(void *user, fm_work_t *work);
  /* The same for evaluation; tensors are only read. NULL: evaluate plans are withdrawn from. */
  fm_status_t (*evaluate_step)(void *user, fm_work_t *work);
  /* May the device take part in `plan`? NULL: always. False: the client withdraws with reason Busy. */
  bool (*may_work)(void *user, const fm_plan_t *plan);
  /* The client's state changed (for a display, a log, persistence). NULL: not told. */
  void (*state_changed)(void *user, uint8_t state);
} fm_app_t;

typedef enum {
  FM_STATE_OFFLINE = 0,  /* no connection */
  FM_STATE_GREETING,     /* Hello sent, no Welcome yet */
  FM_STATE_IDLE,         /* waiting for a plan */
  FM_STATE_DOWNLOADING,
  FM_STATE_CHECKING,     /* CRC of the model */
  FM_STATE_WORKING,      /* train_step or evaluate_step */
  FM_STATE_SEALING,      /* CRC of the update */
  FM_STATE_OFFERING,     /* UpdateBegin sent, no slot yet */
  FM_STATE_UPLOADING,
  FM_STATE_CONFIRMING,   /* UpdateEnd (or an evaluation's result) sent, no receipt yet */
  FM_STATE_HOLDING,      /* receipt came, commit not yet */
  FM_STATE_REFUSED       /* the server refused this device for good */
} fm_state_t;

/* Everything is the caller's and must outlive the client. */
typedef struct {
  const char *device_id;
  const fm_tensor_t *tensors;
  uint32_t tensor_count;    /* 1 to FM_MAX_TENSORS */
  const fm_app_t *app;
  fm_link_t link;
  uint8_t *rx_buffer;       /* at least FM_MIN_BUFFER bytes each */
  uint32_t rx_buffer_size;
  uint8_t *tx_buffer;
  uint32_t tx_buffer_size;
  uint32_t seed;            /* of jitter, boot number and stochastic rounding; best from a true random source */
  uint32_t examples;        /* local training examples, told to the server */
  uint8_t encodings;        /* mask this device may send; 0: float32 only */
  bool prefer_delta;        /* send deltas where the plan allows and every shared tensor has a base */
  uint32_t retry_min_ms;    /* first wait for an answer; 0: 1000. Doubles with jitter up to */
  uint32_t retry_max_ms;    /* 0: 60000 */
} fm_client_config_t;

/* One counter for each reason; the application may set any to 0. */
typedef struct {
  uint32_t messages_in;
  uint32_t messages_out;
  uint32_t bytes_in;            /* of messages, without the link's overhead */
  uint32_t bytes_out;
  uint32_t malformed;           /* dropped: no valid message */
  uint32_t unexpected;          /* dropped: valid, but not in this state, round or version */
  uint32_t timeouts;            /* answers that did not come in time */
  uint32_t connections;
  uint32_t model_crc_errors;    /* downloads started over */
  uint32_t chunks_in;           /* chunks received whole */
  uint32_t chunks_out;          /* chunks handed to the link */
  uint32_t chunks_resumed_in;   /* chunks a broken download did not have to fetch again */
  uint32_t chunks_resumed_out;  /* chunks a broken upload did not have to send again */
  uint32_t updates;             /* receipts */
  uint32_t partial_updates;     /* receipts for updates with fewer steps than planned */
  uint32_t withdrawals;
} fm_client_counters_t;
