/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_codec.h"
#include "fm_client_internal.h"

/* fm_client_t.rx_mode */
enum { RX_SKIP = 0, RX_HEAD, RX_BODY };

/* ---- whole messages ---- */

static void on_welcome(fm_client_t *client, const fm_welcome_t *welcome) {
  if ((client->session == FM_SESSION_GREETING) && (welcome->boot == client->boot)) {
    client->session = FM_SESSION_READY;
    client->come_back_ms = welcome->come_back_ms;
    fm_client_reset_backoff(client);
    fm_job_resume(client, welcome->open_round);
  } else {
    fm_client_count_unexpected(client); /* the broker had queued it for an earlier connection */
  }
}

static void on_refusal(fm_client_t *client, const fm_refusal_t *refusal) {
  if (refusal->round == 0u) {
    client->refusal = refusal->reason;
    if (refusal->retry_after_ms == 0u) {
      client->session = FM_SESSION_REFUSED;
      client->due = 0u;
      client->waiting = false;
    } else {
      const uint32_t wait = refusal->retry_after_ms; /* in [wait/2, wait]: the whole fleet may have got this refusal */
      client->session = FM_SESSION_GREETING;
      client->attempts = 0u; /* they counted the job's retries */
      client->retry_at_ms = client->now_ms + wait - (fm_xorshift(&client->random) % ((wait / 2u) + 1u));
      client->waiting = true;
    }
  } else if ((client->job != (uint8_t)FM_STATE_IDLE) && (refusal->round == client->plan.round)) {
    client->refusal = refusal->reason;
    fm_client_drop_job(client);
  } else {
    fm_client_count_unexpected(client);
  }
}

/* Messages that are valid only after Welcome. */
static void dispatch_ready(fm_client_t *client, const fm_message_t *message) {
  switch (message->type) {
  case FM_BODY_PLAN:
    fm_job_on_plan(client, &message->body.plan);
    break;
  case FM_BODY_UPDATE_STATUS:
    fm_update_on_status(client, &message->body.update_status);
    break;
  case FM_BODY_RECEIPT:
    fm_update_on_receipt(client, &message->body.receipt);
    break;
  case FM_BODY_COMMIT:
    fm_update_on_commit(client, &message->body.commit);
    break;
  case FM_BODY_CLOSING_NOTICE:
    if (message->body.closing_notice.round == client->plan.round) {
      fm_job_close(client);
    }
    break;
  default:
    fm_client_count_unexpected(client);
    break;
  }
}

static void dispatch(fm_client_t *client, const fm_message_t *message) {
  if (message->type == FM_BODY_WELCOME) {
    on_welcome(client, &message->body.welcome);
  } else if (message->type == FM_BODY_REFUSAL) {
    on_refusal(client, &message->body.refusal);
  } else if (client->session == FM_SESSION_READY) {
    dispatch_ready(client, message);
  } else {
    fm_client_count_unexpected(client);
  }
}

/* ---- model chunks ---- */

static bool chunk_expected(const fm_client_t *client, const fm_model_chunk_t *chunk) {
  return (client->job == (uint8_t)FM_STATE_DOWNLOADING) && (chunk->version == client->plan.model_version) &&
         (chunk->index == client->next_chunk) &&
         (chunk->data.size == (4u * fm_job_model_chunk_size(client, chunk->index)));
}

/* Write the piece of the chunk's data that is in `bytes`, a stretch of the message that starts at data offset rx_body.
 */
static void chunk_write(fm_client_t *client, const uint8_t *bytes, uint32_t size) {
  const uint32_t left = client->rx_body_size - client->rx_body;
  const uint32_t piece = (size < left) ? size : left; /* what follows the data is padding */
  const uint32_t at = (4u * client->plan.model_chunk_elements * client->next_chunk) + client->rx_body;
  if (piece != 0u) {
    client->model_version = 0u; /* from here on the tensors are neither the old model nor the new one */
    if (fm_tensors_write(client->config->tensors, client->config->tensor_count, UINT32_MAX, true, at, bytes, piece) ==
        FM_OK) {
      client->rx_body += piece;
    } else {
      client->rx_mode = RX_SKIP;
    }
  }
}

/* The receive buffer holds `fill` bytes of a chunk message: at least its head. */
static void chunk_begin(fm_client_t *client, const fm_message_t *message) {
  const fm_model_chunk_t *chunk = &message->body.model_chunk;
  if (chunk_expected(client, chunk)) {
    client->rx_mode = RX_BODY;
    client->rx_body = 0u;
    client->rx_body_size = chunk->data.size;
    chunk_write(client, &client->config->rx_buffer[message->bulk_offset], client->rx_fill - message->bulk_offset);
  } else {
    client->rx_mode = RX_SKIP;
    fm_client_count_unexpected(client);
  }
}

/* ---- the sink ---- */

static void sink_begin(void *user, uint32_t total) {
  fm_client_t *client = (fm_client_t *)user;
  client->rx_total = total;
  client->rx_fill = 0u;
  client->rx_mode = RX_HEAD;
}

/* The buffer is full before the message is complete, so it must be a chunk. */
static void head_complete(fm_client_t *client) {
  fm_message_t message;
  if ((fm_message_decode(client->config->rx_buffer, client->rx_fill, client->rx_total, &message) == FM_OK) &&
      (message.type == FM_BODY_MODEL_CHUNK)) {
    chunk_begin(client, &message);
  } else {
    client->rx_mode = RX_SKIP;
    client->counters.malformed++;
  }
}

static void sink_data(void *user, const uint8_t *bytes, uint32_t size) {
  fm_client_t *client = (fm_client_t *)user;
  uint32_t used = 0u;
  client->counters.bytes_in += size;
  if (client->rx_mode == RX_HEAD) {
    const uint32_t room = client->config->rx_buffer_size - client->rx_fill;
    used = (size < room) ? size : room;
    (void)memcpy(&client->config->rx_buffer[client->rx_fill], bytes, (size_t)used);
    client->rx_fill += used;
    if ((client->rx_fill == client->config->rx_buffer_size) && (client->rx_total > client->rx_fill)) {
      head_complete(client);
    }
  }
  if (client->job != (uint8_t)FM_STATE_DOWNLOADING) {
    client->rx_mode = (client->rx_mode == RX_BODY) ? RX_SKIP : client->rx_mode; /* withdrawn within the chunk */
  }
  if ((client->rx_mode == RX_BODY) && (used < size)) {
    chunk_write(client, &bytes[used], size - used);
  }
}

static void message_complete(fm_client_t *client) {
  fm_message_t message;
  if (fm_message_decode(client->config->rx_buffer, client->rx_fill, client->rx_total, &message) != FM_OK) {
    client->counters.malformed++;
  } else if (message.type == FM_BODY_MODEL_CHUNK) {
    chunk_begin(client, &message);
  } else {
    dispatch(client, &message);
  }
}

static void sink_end(void *user, bool complete) {
  fm_client_t *client = (fm_client_t *)user;
  if (complete) {
    client->counters.messages_in++;
    if (client->rx_mode == RX_HEAD) {
      message_complete(client);
    }
    if ((client->rx_mode == RX_BODY) && (client->rx_body == client->rx_body_size) &&
        (client->job == (uint8_t)FM_STATE_DOWNLOADING)) {
      fm_job_chunk_done(client);
    }
  }
  client->rx_mode = RX_SKIP;
}

fm_sink_t fm_client_sink(fm_client_t *client) {
  const fm_sink_t sink = {client, sink_begin, sink_data, sink_end};
  return sink;
}
