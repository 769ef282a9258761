/* SPDX-License-Identifier: Apache-2.0 */
/* The client: one struct, one entry point. Call fm_client_init() once, then fm_client_poll() in the main loop.
 *
 *   offline -> greeting -> idle -> downloading -> checking -> working -> sealing -> offering -> uploading ->
 *   confirming -> holding -> idle
 *
 * The client trains cooperatively, one piece per poll, with or without a connection. It keeps its update until the
 * server's commit. The link may break at any moment: a transfer resumes where it stopped.
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

#ifdef __cplusplus
extern "C" {
#endif

#define FM_VERSION 0x00000100u /* major << 16 | minor << 8 | patch: 0.1.0 */

/* Progress of the current plan's training (or evaluation). The application writes it, the client reports it.
 */
typedef struct {
  uint32_t steps;         /* mini-batches done */
  uint32_t planned_steps; /* mini-batches a full update takes */
  uint32_t examples;      /* distinct local examples seen so far: the update's weight */
  uint32_t correct;       /* evaluate: classified correctly */
  float loss;             /* mean so far; 0: unknown. The core passes it on and never computes with it */
  uint32_t covered;       /* bit t: tensor t of the table was trained. Set to all before work_begin */
} fm_work_t;

#define FM_MAX_BINS 32u /* of a query */

/* The answer to a query so far: a histogram over [plan->query_low, plan->query_high) in plan->query_bins bins of
 * equal width. The core passes it on and never computes with it. */
typedef struct {
  uint32_t count; /* values in it */
  float sum;      /* of the values; those outside the range count as the nearer of its ends, here and in the bins */
  uint32_t counts[FM_MAX_BINS];
} fm_histogram_t;

/* Callbacks of the application. Each gets `user`. None may block for longer than the application can do without
 * fm_client_poll(). None may call the client, except where a function says so. */
typedef struct {
  void *user;
  /* The model is complete and checked: prepare to work on `plan` (valid during the call; copy what is needed). Called
   * again when the same plan starts over. FM_OK: start. FM_ERR_TRAINING: withdraw. NULL: nothing to prepare. */
  fm_status_t (*work_begin)(void *user, const fm_plan_t *plan, fm_work_t *work);
  /* One bounded piece of training on tensors in place. FM_OK: more. FM_AGAIN: nothing to do right now, more later.
   * FM_DONE: complete. FM_ERR_TRAINING: withdraw. */
  fm_status_t (*train_step)(void *user, fm_work_t *work);
  /* The same for evaluation; it only reads tensors. NULL: the client withdraws from evaluate plans. */
  fm_status_t (*evaluate_step)(void *user, fm_work_t *work);
  /* May the device take part in `plan`? NULL: always. False: the client withdraws with reason Busy. */
  bool (*may_work)(void *user, const fm_plan_t *plan);
  /* The job entered a state, or entered it again (for a display, a log, persistence). It does not report the session:
   * ask fm_client_state() and fm_client_online(). NULL: not called. */
  void (*state_changed)(void *user, uint8_t state);
  /* One bounded piece of counting local values of the field whose name has the CRC-32 plan->query_field. All of
   * *answer is 0 before the first call, so answer->count gives the progress. FM_OK: more. FM_AGAIN: nothing to do
   * right now, more later. FM_DONE: complete. FM_ERR_UNSUPPORTED: no such field; withdraw. NULL: the client
   * withdraws from query plans, as with FM_WITH_QUERY 0. */
  fm_status_t (*query_step)(void *user, const fm_plan_t *plan, fm_histogram_t *answer);
} fm_app_t;

typedef enum {
  FM_STATE_OFFLINE = 0, /* no connection */
  FM_STATE_GREETING,    /* Hello sent, no Welcome yet */
  FM_STATE_IDLE,        /* waiting for a plan */
  FM_STATE_DOWNLOADING,
  FM_STATE_CHECKING, /* CRC of the model */
  FM_STATE_WORKING,  /* train_step, evaluate_step or query_step */
  FM_STATE_SEALING,  /* CRC of the update */
  FM_STATE_OFFERING, /* UpdateBegin sent, no slot yet */
  FM_STATE_UPLOADING,
  FM_STATE_CONFIRMING, /* UpdateEnd (or a task's result) sent, no receipt yet */
  FM_STATE_HOLDING,    /* the receipt arrived; waiting for the commit */
  FM_STATE_REFUSED     /* the server refused this device for good */
} fm_state_t;

struct fm_client;

/* What a keeper is to make durable; bits of a mask, the most urgent first. */
enum {
  FM_KEEP_JOB = 1,    /* a plan was accepted */
  FM_KEEP_MODEL = 2,  /* more of the model is in the tensors: `next_chunk` chunks, or all of them once it is complete */
  FM_KEEP_UPDATE = 4, /* the update is ready to be offered */
  FM_KEEP_IDLE = 8    /* the job is over */
};

/* Keeps the job over a reset; fm_keep.h implements one for raw flash. Neither function may call the client. */
typedef struct {
  /* Restore what was kept. Called once, from fm_client_init(). Time is linear in the size of the model. */
  void (*load)(void *self, struct fm_client *client);
  /* Make one thing durable (FM_KEEP_*), a bounded piece per call. FM_AGAIN: call again. FM_OK: it is durable. Any other
   * result: it will not be durable, and the client goes on without it. */
  fm_status_t (*save)(void *self, const struct fm_client *client, uint8_t what);
} fm_keeper_api_t;

typedef struct {
  const fm_keeper_api_t *api; /* NULL: nothing is kept */
  void *self;
} fm_keeper_t;

/* The caller owns everything that this struct points to; all of it must outlive the client. */
typedef struct {
  const char *device_id;
  const fm_tensor_t *tensors;
  uint32_t tensor_count; /* 1 to FM_MAX_TENSORS */
  const fm_app_t *app;
  fm_link_t link;
  fm_keeper_t keeper;
  uint8_t *rx_buffer; /* at least FM_MIN_BUFFER bytes each */
  uint32_t rx_buffer_size;
  uint8_t *tx_buffer;
  uint32_t tx_buffer_size;
  uint32_t seed;            /* of jitter, boot number and stochastic rounding; best from a true random source */
  uint32_t examples;        /* local training examples, told to the server */
  uint8_t encodings;        /* that this device may send: 1u << FM_ENCODING_* for each; 0: float32 only */
  bool prefer_delta;        /* send deltas where the plan allows and every shared tensor has a base */
  uint32_t retry_min_ms;    /* first wait for an answer; 0: 1000. Doubles, with jitter, up to retry_max_ms */
  uint32_t retry_max_ms;    /* 0: 60000 */
  uint32_t free_memory_kib; /* that training may use, told to the server; 0: unknown */
} fm_client_config_t;

/* One counter for each reason; the application may set any to 0. */
typedef struct {
  uint32_t messages_in;
  uint32_t messages_out;
  uint32_t bytes_in; /* of messages, without the link's overhead */
  uint32_t bytes_out;
  uint32_t malformed;  /* dropped: no valid message */
  uint32_t unexpected; /* dropped: valid, but not in this state, round or version */
  uint32_t timeouts;   /* answers that did not arrive in time */
  uint32_t connections;
  uint32_t model_crc_errors;   /* downloads started over */
  uint32_t chunks_in;          /* chunks received whole */
  uint32_t chunks_out;         /* chunks handed to the link */
  uint32_t chunks_resumed_in;  /* chunks a broken download did not have to fetch again */
  uint32_t chunks_resumed_out; /* chunks a broken upload did not have to send again */
  uint32_t updates;            /* receipts */
  uint32_t partial_updates;    /* receipts for updates with fewer steps than planned */
  uint32_t withdrawals;
} fm_client_counters_t;

/* One device. Public so that its size is known; read the counters, touch nothing else. What the code touches most comes
 * first: Thumb's short instructions reach 32 bytes, or 32 words, from the start of a struct. */
typedef struct fm_client {
  uint8_t session;  /* none, greeting, ready, refused */
  uint8_t job;      /* fm_state_t from IDLE on */
  uint8_t rx_mode;  /* head, body, skip */
  uint8_t attempts; /* retries since the last progress */
  bool waiting;     /* retry_at_ms is armed */
  bool offered;     /* UpdateBegin of this update may have gone out before: wait for the server's answer */
  bool receipted;   /* this update's receipt was counted */
  bool hurry;       /* the closing notice came before the first step */
  bool by_request;  /* chunks come by ChunkRequest, because the link's fetch() failed */
  bool restored;    /* the job is from before a reset; its time runs from the first poll */
  uint8_t keep_due; /* FM_KEEP_* */
  bool from_base;   /* the model was complete already: its working copy is restored from the base */
  uint8_t encoding;
  uint8_t kind;
  uint8_t check_failures; /* downloads of this plan whose CRC was wrong */
  uint8_t window_size;    /* bytes of `window` */
  uint8_t withdraw_reason;
  uint8_t battery;
  uint8_t flags;
  uint8_t sent;    /* bit of `due` of the message that the link accepted last */
  uint8_t refusal; /* reason of the last Refusal, meaningful when session is refused */

  const fm_client_config_t *config;
  uint32_t now_ms;
  uint32_t due;           /* messages to send, one bit each, in order of priority */
  uint32_t connection;    /* the link's connection this session belongs to; 0: none */
  uint32_t retry_at_ms;   /* when `waiting`: resend what was not answered */
  uint32_t next_chunk;    /* download or upload */
  uint32_t chunks;        /* of the update */
  uint32_t elements;      /* of the update */
  uint32_t shared;        /* elements of the shared tensors */
  uint32_t cursor;        /* bytes (checking) or chunks (sealing) done */
  uint32_t crc32;         /* so far (checking, sealing), then the update's; of a task's result, the plan's seed */
  uint32_t window_first;  /* see `window` */
  uint32_t model_version; /* the complete, checked model in the tensors; 0: none */
  uint32_t model_crc32;
  uint32_t done_round; /* last round whose commit (or refusal) was seen */
  fm_work_t work;
  fm_plan_t plan;      /* of the present job */
  float scale;         /* of the chunk being sent */
  uint32_t sent_chunk; /* the chunk whose data the link may be reading */
  uint32_t rx_total;   /* of the message being received */
  uint32_t rx_fill;    /* bytes of it in the receive buffer */
  uint32_t rx_body;    /* bytes of the bulk vector written */
  uint32_t rx_body_size;
  uint32_t plan_at_ms;
  uint32_t progress_at_ms;
  uint32_t withdraw_round;
  uint32_t random; /* xorshift32 state, never 0 */
  uint32_t boot;
  uint32_t come_back_ms; /* the server's last advice */
  uint8_t window[32];    /* chunks the server has, from window_first */
  fm_client_counters_t counters;
#if FM_WITH_QUERY
  fm_histogram_t answer; /* of the present query; once complete, its counts are little-endian */
#endif
} fm_client_t;

/* Check the config and make the client ready. Keeps the pointer to `config`. FM_ERR_ARGUMENT: a field is missing or out
 * of range, or a tensor is empty or named twice. FM_ERR_BUFFER: a buffer is smaller than FM_MIN_BUFFER. */
fm_status_t fm_client_init(fm_client_t *client, const fm_client_config_t *config);

/* Declare that the tensors hold model `version` with this CRC-32, kept over a reset by the application. The client then
 * does not fetch it again when a plan names it. Where all tensors have a `base`, that holds the model, and the tensors
 * are overwritten from it. The CRC is checked before use. Call between fm_client_init() and the first poll. */
void fm_client_restore_model(fm_client_t *client, uint32_t version, uint32_t crc32);

/* Do a bounded amount of work: one poll of the link, one piece of work (one train_step, or FM_POLL_BUDGET of CRC), at
 * most one message. `now_ms`: monotonic, may wrap. *wait_ms: set to how long the caller may sleep if no byte arrives;
 * 0: call again at once. Returns FM_OK, or FM_ERR_REFUSED while broker or server refuse this device, or
 * FM_ERR_ARGUMENT. */
fm_status_t fm_client_poll(fm_client_t *client, uint32_t now_ms, uint32_t *wait_ms);

/* Return what the client is doing. Work goes on without a connection; fm_client_online() tells if there is one. */
fm_state_t fm_client_state(const fm_client_t *client);

/* Return the version of the complete, checked model in the tensors (in their base copies, where they have any). 0:
 * there is none, the tensors are being overwritten, or training in place has changed them. */
uint32_t fm_client_model_version(const fm_client_t *client);

/* Return true when the server has welcomed this connection. */
bool fm_client_online(const fm_client_t *client);

/* Stop the current job, if any, and tell the server. `reason`: FM_WITHDRAW_REASON_*. Do not call from a callback. */
void fm_client_withdraw(fm_client_t *client, uint8_t reason);

/* Finish the current training now with the steps done, as a closing notice would. Does nothing when the plan accepts no
 * partial updates. May be called from train_step, whose own result is then ignored. */
void fm_client_finish_early(fm_client_t *client);

/* Tell the server the device's state. The server decides by it whether to select this device. battery: percent, 255:
 * unknown. flags: bit 0 charging, bit 1 on a metered network, bit 2 busy: do not select. */
void fm_client_set_device_state(fm_client_t *client, uint8_t battery, uint8_t flags);

#ifdef __cplusplus
}
#endif

#endif
