/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_codec.h"
#include "fm_client_internal.h"

/* Encode a message and hand it to the link. FM_AGAIN: the link is busy. `body`: the data after the message's head. */
static fm_status_t send(fm_client_t *client, const fm_message_t *message, fm_outgoing_t *body, fm_delivery_t delivery) {
  const fm_client_config_t *config = client->config;
  fm_status_t status = FM_AGAIN;
  if ((client->connection != 0u) && !config->link.api->sending(config->link.self)) {
    status = fm_message_encode(message, config->tx_buffer, config->tx_buffer_size, &body->head_size);
    if (status == FM_OK) {
      body->head = config->tx_buffer;
      status = config->link.api->send(config->link.self, body, delivery);
    }
  }
  if (status == FM_OK) {
    client->sent = 0u; /* right for a chunk; the caller sets it for other messages */
    client->counters.messages_out++;
    client->counters.bytes_out += body->head_size + body->body_size;
  }
  return status;
}

fm_status_t fm_client_send_chunk(fm_client_t *client, uint32_t size, fm_read_t read) {
  fm_outgoing_t body = {NULL, 0u, size, read, client};
  fm_message_t message;
  (void)memset(&message, 0, sizeof message);
  message.type = FM_BODY_UPDATE_CHUNK;
  message.body.update_chunk.round = client->plan.round;
  message.body.update_chunk.index = client->sent_chunk;
  message.body.update_chunk.scale = client->scale;
  message.body.update_chunk.data.size = size;
  return send(client, &message, &body, FM_AT_MOST_ONCE);
}

static void fill_hello(const fm_client_t *client, fm_hello_t *hello) {
  const fm_client_config_t *config = client->config;
  hello->device_id.data = (const uint8_t *)config->device_id;
  hello->device_id.size = (uint32_t)strlen(config->device_id);
  hello->protocol_min = 1u;
  hello->protocol_max = 1u;
  hello->boot = client->boot;
  hello->library_version = FM_VERSION;
  hello->elements = client->shared;
  hello->layout_crc32 = fm_tensors_layout_crc32(config->tensors, config->tensor_count);
  hello->examples = config->examples;
  hello->encodings = (uint8_t)(config->encodings | FM_BIT(FM_ENCODING_FLOAT32));
  hello->kinds = fm_plan_kinds(client);
  hello->model_version = client->model_version;
  hello->model_crc32 = client->model_crc32;
  if ((client->job >= (uint8_t)FM_STATE_OFFERING) && (client->plan.task == FM_TASK_FIT)) {
    hello->held_round = client->plan.round;
    hello->held_crc32 = client->crc32;
  }
  hello->battery = client->battery;
  hello->flags = client->flags;
  hello->free_memory_kib = config->free_memory_kib;
}

/* The covered tensors as ranges of the model, adjacent ones joined. Empty when they are the whole model. */
static uint32_t fill_ranges(const fm_client_t *client, uint8_t *ranges) {
  uint32_t first = 0u;
  uint32_t end = UINT32_MAX; /* of the last range */
  uint32_t length = 0u;
  uint32_t size = 0u;
  for (uint32_t t = 0u; t < client->config->tensor_count; t++) {
    const fm_tensor_t *tensor = &client->config->tensors[t];
    if (!tensor->local) {
      if ((client->work.covered & FM_TENSOR_BIT(t)) != 0u) {
        if (first != end) {
          fm_put_le32(&ranges[size], first);
          length = 0u;
          size += 8u;
        }
        length += tensor->count;
        end = first + tensor->count;
        fm_put_le32(&ranges[size - 4u], length);
      }
      first += tensor->count;
    }
  }
  return (client->elements == client->shared) ? 0u : size;
}

static void fill_begin(const fm_client_t *client, uint8_t *ranges, fm_update_begin_t *begin) {
  begin->ranges.size = fill_ranges(client, ranges);
  begin->ranges.data = (begin->ranges.size != 0u) ? ranges : NULL;
  begin->round = client->plan.round;
  begin->base_version = client->plan.model_version;
  begin->base_crc32 = client->plan.model_crc32;
  begin->crc32 = client->crc32;
  begin->elements = client->elements;
  begin->chunk_elements = client->plan.update_chunk_elements;
  begin->encoding = client->encoding;
  begin->kind = client->kind;
  begin->examples = client->work.examples;
  begin->steps = client->work.steps;
  begin->planned_steps = client->work.planned_steps;
  begin->loss = client->work.loss;
}

static void fill_evaluation(const fm_client_t *client, fm_evaluation_t *evaluation) {
  evaluation->round = client->plan.round;
  evaluation->model_version = client->plan.model_version;
  evaluation->examples = client->work.examples;
  evaluation->correct = client->work.correct;
  evaluation->loss = client->work.loss;
  evaluation->seed = client->plan.seed;
}

static void fill_answer(const fm_client_t *client, fm_answer_t *answer) {
#if FM_WITH_QUERY
  answer->round = client->plan.round;
  answer->seed = client->plan.seed;
  answer->count = client->answer.count;
  answer->sum = client->answer.sum;
  answer->counts.data = (const uint8_t *)client->answer.counts;
  answer->counts.size = 4u * (uint32_t)client->plan.query_bins;
#else
  (void)client;
  (void)answer;
#endif
}

static void fill_result(const fm_client_t *client, fm_message_t *message) {
  if ((FM_WITH_QUERY != 0) && (client->plan.task == FM_TASK_QUERY)) {
    message->type = FM_BODY_ANSWER;
    fill_answer(client, &message->body.answer);
  } else {
    message->type = FM_BODY_EVALUATION;
    fill_evaluation(client, &message->body.evaluation);
  }
}

static void fill_progress(const fm_client_t *client, fm_progress_t *progress) {
  progress->round = client->plan.round;
  progress->steps = client->work.steps;
  progress->planned_steps = client->work.planned_steps;
  progress->examples = client->work.examples;
  progress->loss = client->work.loss;
}

/* `ranges`: FM_RANGES_SIZE bytes that live as long as the message. */
static void fill_message(const fm_client_t *client, uint32_t due, uint8_t *ranges, fm_message_t *message) {
  (void)memset(message, 0, sizeof *message);
  switch (due) {
  case FM_DUE_HELLO:
    message->type = FM_BODY_HELLO;
    fill_hello(client, &message->body.hello);
    break;
  case FM_DUE_WITHDRAW:
    message->type = FM_BODY_WITHDRAW;
    message->body.withdraw.round = client->withdraw_round;
    message->body.withdraw.reason = client->withdraw_reason;
    break;
  case FM_DUE_STATE:
    message->type = FM_BODY_DEVICE_STATE;
    message->body.device_state.online = true;
    message->body.device_state.battery = client->battery;
    message->body.device_state.flags = client->flags;
    break;
  case FM_DUE_BEGIN:
    message->type = FM_BODY_UPDATE_BEGIN;
    fill_begin(client, ranges, &message->body.update_begin);
    break;
  case FM_DUE_END:
    message->type = FM_BODY_UPDATE_END;
    message->body.update_end.round = client->plan.round;
    message->body.update_end.chunks = client->chunks;
    message->body.update_end.crc32 = client->crc32;
    break;
  case FM_DUE_RESULT:
    fill_result(client, message);
    break;
  case FM_DUE_FETCH:
    message->type = FM_BODY_CHUNK_REQUEST;
    message->body.chunk_request.version = client->plan.model_version;
    message->body.chunk_request.index = client->next_chunk;
    break;
  default: /* FM_DUE_PROGRESS */
    message->type = FM_BODY_PROGRESS;
    fill_progress(client, &message->body.progress);
    break;
  }
}

uint32_t fm_client_ready(const fm_client_t *client) {
  const bool waits = (client->keep_due & (uint8_t)FM_KEEP_UPDATE) != 0u;
  return client->due & (waits ? ~FM_DUE_BEGIN : UINT32_MAX);
}

/* Messages that need an answer arm the retry timer. */
void fm_client_send_due(fm_client_t *client) {
  const fm_link_t *link = &client->config->link;
  const uint32_t ready = fm_client_ready(client);
  const uint32_t due = ready & (0u - ready);
  fm_status_t status;
  if ((due == FM_DUE_FETCH) && (link->api->fetch != NULL) && !client->by_request) {
    /* by the link's fetch() first; by ChunkRequest when that failed */
    status = link->api->fetch(link->self, client->plan.model_version, client->next_chunk);
  } else {
    fm_outgoing_t no_body = {0};
    fm_message_t message;
    uint8_t ranges[FM_RANGES_SIZE];
    fill_message(client, due, ranges, &message);
    status = send(client, &message, &no_body, (due == FM_DUE_PROGRESS) ? FM_AT_MOST_ONCE : FM_AT_LEAST_ONCE);
  }
  if (status != FM_AGAIN) {
    client->sent = (uint8_t)due;
    client->due &= ~due;
    if ((due & (FM_DUE_HELLO | FM_DUE_BEGIN | FM_DUE_END | FM_DUE_RESULT | FM_DUE_FETCH)) != 0u) {
      fm_client_arm_retry(client);
    }
  }
}
