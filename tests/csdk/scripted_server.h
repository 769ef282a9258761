/* SPDX-License-Identifier: Apache-2.0 */
/* Over 350 lines: one server for all client tests; C has no other way to share it without a second build. */
/* One device on a link in memory, a server written out by hand, and a clock that the test moves. */
#ifndef SCRIPTED_SERVER_H
#define SCRIPTED_SERVER_H

#include <string.h>

#include "check.h"
#include "fedmote/fm_client.h"
#include "fedmote/fm_codec.h"
#include "fedmote/fm_crc32.h"

/* ---- a link in memory ---- */

typedef struct {
  uint32_t connection;
  bool busy;  /* send() answers FM_AGAIN */
  bool stuck; /* sending() stays true */
  bool has_fetch;
  uint32_t fetches;
  uint32_t fetch_version, fetch_index;
  uint32_t aborts;
  const fm_sink_t *sink;
  uint8_t in[70000]; /* what the next poll delivers */
  uint32_t in_size;
  uint32_t in_piece; /* bytes per data() call */
  bool in_broken;    /* the message breaks off after in_size bytes of in_total */
  uint32_t in_total;
  uint8_t out[16][70000];
  uint32_t out_size[16];
  uint32_t out_count;
} memory_link_t;

static inline void deliver(memory_link_t *link, const fm_sink_t *sink) {
  uint32_t at = 0u;
  sink->begin(sink->user, link->in_total);
  while (at < link->in_size) {
    const uint32_t left = link->in_size - at;
    const uint32_t piece = (left < link->in_piece) ? left : link->in_piece;
    sink->data(sink->user, &link->in[at], piece);
    at += piece;
  }
  sink->end(sink->user, !link->in_broken);
  link->in_size = 0u;
}

static inline fm_status_t memory_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  memory_link_t *link = self;
  (void)now_ms;
  (void)wait_ms;
  if (link->in_size != 0u) {
    deliver(link, sink);
  }
  return FM_OK;
}

static inline uint32_t memory_connection(const void *self) { return ((const memory_link_t *)self)->connection; }

static inline fm_status_t memory_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  memory_link_t *link = self;
  uint8_t *out = link->out[link->out_count];
  (void)delivery;
  if (link->busy) {
    return FM_AGAIN;
  }
  memcpy(out, message->head, message->head_size);
  for (uint32_t at = 0u; at < message->body_size; at += 7u) { /* any piece size must do */
    const uint32_t left = message->body_size - at;
    const fm_status_t status = message->read(message->user, at, &out[message->head_size + at], (left < 7u) ? left : 7u);
    if (status != FM_OK) {
      return status;
    }
  }
  link->out_size[link->out_count] = message->head_size + message->body_size;
  link->out_count++;
  return FM_OK;
}

static inline bool memory_sending(const void *self) { return ((const memory_link_t *)self)->stuck; }

static inline void memory_abort(void *self) {
  memory_link_t *link = self;
  link->aborts++;
  link->stuck = false;
}

static inline fm_status_t memory_fetch(void *self, uint32_t version, uint32_t index) {
  memory_link_t *link = self;
  if (link->busy) {
    return FM_AGAIN;
  }
  link->fetches++;
  link->fetch_version = version;
  link->fetch_index = index;
  return FM_OK;
}

static const fm_link_api_t plain_api = {memory_poll,    memory_connection, memory_send,
                                        memory_sending, memory_abort,      NULL};
static const fm_link_api_t fetch_api = {memory_poll,    memory_connection, memory_send,
                                        memory_sending, memory_abort,      memory_fetch};

/* ---- a device ---- */

#define W 300u
#define B 10u
#define HEAD 5u
#define SHARED (W + B)

typedef struct {
  fm_client_t client;
  fm_client_config_t config;
  fm_tensor_t tensors[3];
  fm_app_t app;
  memory_link_t link;
  float data[W + B + HEAD];
  float base[W + B];
  float model[W + B];
  uint8_t rx[256], tx[256];
  uint32_t now;
  uint32_t wait;
  /* the application */
  uint32_t steps_wanted;
  uint32_t begun;
  fm_status_t begin_status, step_status;
  bool willing;
  uint32_t covered;
  bool finish_in_step;
  uint32_t state_changes;
  uint8_t flash[4u * B];
  bool flash_broken;
} device_t;

static device_t d;
static fm_message_t got; /* what took() took */

static inline fm_status_t app_begin(void *user, const fm_plan_t *plan, fm_work_t *work) {
  device_t *device = user;
  device->begun++;
  work->planned_steps = device->steps_wanted;
  if (device->covered != 0u) {
    work->covered = device->covered;
  }
  (void)plan;
  return device->begin_status;
}

static inline fm_status_t app_step(void *user, fm_work_t *work) {
  device_t *device = user;
  if (device->step_status != FM_OK) {
    return device->step_status;
  }
  for (uint32_t i = 0u; i < SHARED; i++) {
    device->data[i] += 0.5f;
  }
  work->steps++;
  work->examples += 4u;
  work->correct += 3u;
  work->loss = 0.25f;
  if (device->finish_in_step) {
    fm_client_finish_early(&device->client);
  }
  return (work->steps >= device->steps_wanted) ? FM_DONE : FM_OK;
}

static inline bool app_may(void *user, const fm_plan_t *plan) {
  (void)plan;
  return ((device_t *)user)->willing;
}

static inline void app_state(void *user, uint8_t state) {
  (void)state;
  ((device_t *)user)->state_changes++;
}

/* Four values a call: 0.5 in bin 0, 1.5 in bin 1 and so on. */
static inline fm_status_t app_query(void *user, const fm_plan_t *plan, fm_histogram_t *answer) {
  device_t *device = user;
  if (device->step_status != FM_OK) {
    return device->step_status;
  }
  for (uint32_t i = 0u; i < 4u; i++) {
    answer->counts[answer->count % plan->query_bins]++;
    answer->sum += (float)(answer->count % plan->query_bins) + 0.5f;
    answer->count++;
  }
  return (answer->count >= (4u * device->steps_wanted)) ? FM_DONE : FM_OK;
}

static inline fm_status_t tensor_flash_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  device_t *device = user;
  if (device->flash_broken) {
    return FM_ERR_STORAGE;
  }
  memcpy(out, &device->flash[offset], size);
  return FM_OK;
}

static inline fm_status_t tensor_flash_write(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  device_t *device = user;
  if (device->flash_broken) {
    return FM_ERR_STORAGE;
  }
  memcpy(&device->flash[offset], bytes, size);
  return FM_OK;
}

static const fm_tensor_io_t tensor_flash_io = {tensor_flash_read, tensor_flash_write, &d};

static inline void setup(void) {
  memset(&d, 0, sizeof d);
  d.tensors[0] = (fm_tensor_t){"w", W, false, d.data, d.base, NULL};
  d.tensors[1] = (fm_tensor_t){"b", B, false, &d.data[W], &d.base[W], NULL};
  d.tensors[2] = (fm_tensor_t){"head", HEAD, true, &d.data[W + B], NULL, NULL};
  d.app = (fm_app_t){&d, app_begin, app_step, app_step, app_may, app_state, app_query};
  d.config = (fm_client_config_t){.device_id = "pump-7",
                                  .tensors = d.tensors,
                                  .tensor_count = 3u,
                                  .app = &d.app,
                                  .link = {&fetch_api, &d.link},
                                  .rx_buffer = d.rx,
                                  .rx_buffer_size = sizeof d.rx,
                                  .tx_buffer = d.tx,
                                  .tx_buffer_size = sizeof d.tx,
                                  .seed = 5u,
                                  .examples = 36u};
  d.link.in_piece = 64u;
  d.link.has_fetch = true;
  d.steps_wanted = 3u;
  d.willing = true;
  for (uint32_t i = 0u; i < SHARED; i++) {
    d.model[i] = (float)i / 8.0f;
  }
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
}

/* The server's side of elements: little-endian on every machine. Valid until the next call. */
static inline const uint8_t *image(const float *values, uint32_t count) {
  static uint8_t bytes[4u * SHARED];
  for (uint32_t i = 0u; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    for (uint32_t byte = 0u; byte < 4u; byte++) {
      bytes[(4u * i) + byte] = (uint8_t)(bits >> (8u * byte));
    }
  }
  return bytes;
}

static inline void from_image(float *values, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0u; i < count; i++) {
    const uint8_t *b = &bytes[4u * i];
    const uint32_t bits = b[0] | ((uint32_t)b[1] << 8) | ((uint32_t)b[2] << 16) | ((uint32_t)b[3] << 24);
    memcpy(&values[i], &bits, sizeof bits);
  }
}

static inline void poll_once(void) { (void)fm_client_poll(&d.client, d.now, &d.wait); }

/* Poll until a message or a fetch goes out, at most `limit` times. */
static inline bool poll_out(uint32_t limit) {
  const uint32_t fetches = d.link.fetches;
  for (uint32_t i = 0u; (i < limit) && (d.link.out_count == 0u) && (d.link.fetches == fetches); i++) {
    poll_once();
  }
  return d.link.out_count != 0u;
}

static inline void give_bytes(const uint8_t *bytes, uint32_t size) {
  memcpy(d.link.in, bytes, size);
  d.link.in_size = size;
  d.link.in_total = size;
  d.link.in_broken = false;
  poll_once();
}

static inline void give(fm_message_t *message) {
  static uint8_t buffer[70000];
  uint32_t size = 0u;
  CHECK(fm_message_encode(message, buffer, sizeof buffer, &size) == FM_OK);
  if (message->type == FM_BODY_MODEL_CHUNK) {
    memcpy(&buffer[size], message->body.model_chunk.data.data, message->body.model_chunk.data.size);
    size += message->body.model_chunk.data.size;
  }
  give_bytes(buffer, size);
}

/* The oldest message that went out must be a `type`; it is in `got` then. */
static inline bool took(uint8_t type) {
  static uint8_t bytes[70000];
  bool ok = d.link.out_count != 0u;
  if (ok) {
    memcpy(bytes, d.link.out[0], d.link.out_size[0]);
    ok = (fm_message_decode(bytes, d.link.out_size[0], d.link.out_size[0], &got) == FM_OK) && (got.type == type);
    for (uint32_t i = 1u; i < d.link.out_count; i++) {
      memcpy(d.link.out[i - 1u], d.link.out[i], d.link.out_size[i]);
      d.link.out_size[i - 1u] = d.link.out_size[i];
    }
    d.link.out_count--;
  }
  return ok;
}

static inline void connect_link(void) {
  static uint32_t number = 0u;
  number++;
  d.link.connection = number;
  d.link.out_count = 0u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_HELLO));
}

static inline void welcome(uint32_t open_round) {
  fm_message_t m = {0};
  m.type = FM_BODY_WELCOME;
  m.body.welcome.protocol = 1u;
  m.body.welcome.boot = d.client.boot;
  m.body.welcome.open_round = open_round;
  give(&m);
}

static inline fm_message_t plan_message(uint32_t round) {
  fm_message_t m = {0};
  m.type = FM_BODY_PLAN;
  m.body.plan.round = round;
  m.body.plan.task = FM_TASK_FIT;
  m.body.plan.model_version = round;
  m.body.plan.model_elements = SHARED;
  m.body.plan.model_crc32 = fm_crc32(0u, image(d.model, SHARED), 4u * SHARED);
  m.body.plan.model_chunk_elements = 100u;
  m.body.plan.update_chunk_elements = 90u;
  m.body.plan.encodings = 1u;
  m.body.plan.kinds = 1u;
  m.body.plan.partial_allowed = true;
  m.body.plan.epochs = 1u;
  m.body.plan.seed = 77u;
  return m;
}

static inline fm_message_t query_message(uint32_t round, uint8_t bins) {
  fm_message_t m = plan_message(round);
  m.body.plan.task = FM_TASK_QUERY;
  m.body.plan.query_field = 7u;
  m.body.plan.query_high = (float)bins;
  m.body.plan.query_bins = bins;
  return m;
}

static inline void plan(uint32_t round) {
  fm_message_t m = plan_message(round);
  give(&m);
}

static inline void chunk(uint32_t version, uint32_t index) {
  fm_message_t m = {0};
  const uint32_t left = SHARED - (100u * index);
  m.type = FM_BODY_MODEL_CHUNK;
  m.body.model_chunk.version = version;
  m.body.model_chunk.index = index;
  m.body.model_chunk.data.data = image(&d.model[100u * index], (left < 100u) ? left : 100u);
  m.body.model_chunk.data.size = 4u * ((left < 100u) ? left : 100u);
  give(&m);
}

static inline void download(uint32_t version, uint32_t from) {
  for (uint32_t i = from; i < 4u; i++) {
    CHECK(d.link.fetch_version == version);
    CHECK(d.link.fetch_index == i);
    chunk(version, i);
    (void)poll_out(2u);
  }
}

static inline void status(uint32_t round, uint8_t state, uint32_t first, const uint8_t *received, uint32_t size) {
  fm_message_t m = {0};
  m.type = FM_BODY_UPDATE_STATUS;
  m.body.update_status.round = round;
  m.body.update_status.crc32 = d.client.crc32;
  m.body.update_status.state = state;
  m.body.update_status.retry_after_ms = 700u;
  m.body.update_status.first = first;
  m.body.update_status.received.data = received;
  m.body.update_status.received.size = size;
  give(&m);
}

static inline void receipt(uint32_t round, uint32_t crc) {
  fm_message_t m = {0};
  m.type = FM_BODY_RECEIPT;
  m.body.receipt.round = round;
  m.body.receipt.crc32 = crc;
  give(&m);
}

static inline void commit(uint32_t round) {
  fm_message_t m = {0};
  m.type = FM_BODY_COMMIT;
  m.body.commit.round = round;
  m.body.commit.model_version = round + 1u;
  give(&m);
}

static inline void closing(uint32_t round) {
  fm_message_t m = {0};
  m.type = FM_BODY_CLOSING_NOTICE;
  m.body.closing_notice.round = round;
  m.body.closing_notice.remaining_ms = 1000u;
  give(&m);
}

static inline void refuse(uint32_t round, uint32_t retry_after) {
  fm_message_t m = {0};
  m.type = FM_BODY_REFUSAL;
  m.body.refusal.reason = FM_REFUSAL_REASON_LAYOUT;
  m.body.refusal.round = round;
  m.body.refusal.retry_after_ms = retry_after;
  give(&m);
}

/* Up to and including UpdateBegin, which is left in `got`. */
static inline void until_offer(uint32_t round) {
  connect_link();
  welcome(round);
  CHECK(fm_client_online(&d.client));
  plan(round);
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
  (void)poll_out(2u);
  download(round, 0u);
  CHECK(poll_out(100u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
}

/* Take the update's chunks that come now, checking their place; the values go to `update`. Returns how many. */
static inline uint32_t take_chunks(float *update) {
  uint32_t count = 0u;
  while (poll_out(3u) && (d.link.out_count != 0u) && took(FM_BODY_UPDATE_CHUNK)) {
    from_image(&update[90u * got.body.update_chunk.index], got.body.update_chunk.data.data,
               got.body.update_chunk.data.size / 4u);
    count++;
  }
  CHECK(got.type == FM_BODY_UPDATE_END); /* what stopped the loop */
  return count;
}

#endif
