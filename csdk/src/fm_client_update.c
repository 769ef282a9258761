/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_client_internal.h"

#define PIECE 32u /* bytes on the stack at a time */

static fm_encoder_t encoder(const fm_client_t *client) {
  const fm_client_config_t *config = client->config;
  fm_encoder_t e;
  e.tensors = config->tensors;
  e.tensor_count = config->tensor_count;
  e.mask = client->work.covered;
  /* Depends on plan and device only, so an update encoded again after a reset has the same bytes. */
  e.seed = fm_crc32(client->plan.seed ^ client->plan.round, config->device_id, (uint32_t)strlen(config->device_id));
  e.encoding = client->encoding;
  e.delta = client->kind == FM_UPDATE_KIND_DELTA;
  return e;
}

void fm_update_begin(fm_client_t *client) {
  client->chunks = fm_chunk_count(client->elements, client->plan.update_chunk_elements);
  client->next_chunk = 0u;
  client->crc32 = 0u;
  fm_client_enter(client, FM_STATE_SEALING);
}

void fm_update_offer(fm_client_t *client) {
  fm_client_enter(client, FM_STATE_OFFERING);
  client->due |= FM_DUE_BEGIN;
}

/* ---- sending ---- */

static bool window_has(const fm_client_t *client, uint32_t chunk) {
  const uint32_t bit = chunk - client->window_first;
  bool has = chunk < client->window_first;
  if (!has && (bit < (8u * (uint32_t)client->window_size))) {
    has = (((uint32_t)client->window[bit / 8u] >> (bit % 8u)) & 1u) != 0u;
  }
  return has;
}

static uint32_t update_chunk_size(const fm_client_t *client, uint32_t index) {
  return fm_chunk_size(client->elements, client->plan.update_chunk_elements, index);
}

/* CRC of one chunk's data from the cursor on, within the budget. True when the chunk is done. */
static bool seal_chunk(fm_client_t *client, const fm_encoder_t *e, uint32_t *budget, fm_status_t *status) {
  const uint32_t first = client->next_chunk * client->plan.update_chunk_elements;
  const uint32_t elements = update_chunk_size(client, client->next_chunk);
  const uint32_t total = elements * fm_encoding_width(e->encoding);
  if (client->cursor == 0u) {
    *status = fm_encoding_scale(e, first, elements, &client->scale);
  }
  while ((*status == FM_OK) && (client->cursor < total) && (*budget != 0u)) {
    uint8_t piece[PIECE];
    const uint32_t size = fm_smaller(fm_smaller(PIECE, total - client->cursor), *budget);
    *status = fm_encoding_read(e, first, client->scale, client->cursor, piece, size);
    client->crc32 = fm_crc32(client->crc32, piece, size);
    client->cursor += size;
    *budget -= size;
  }
  return client->cursor == total;
}

void fm_update_sealing(fm_client_t *client) {
  const fm_encoder_t e = encoder(client);
  uint32_t budget = FM_POLL_BUDGET;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (budget != 0u) && (client->next_chunk < client->chunks)) {
    if (seal_chunk(client, &e, &budget, &status)) {
      client->next_chunk++;
      client->cursor = 0u;
    }
  }
  if (status != FM_OK) {
    fm_client_withdraw_job(client, FM_WITHDRAW_REASON_TRAINING_FAILED);
  } else if (client->next_chunk == client->chunks) {
    client->window_first = 0u;
    client->window_size = 0u;
    fm_client_keep(client, FM_KEEP_UPDATE);
    fm_update_offer(client);
  } else {
    /* the next poll goes on */
  }
}

static fm_status_t read_chunk(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  const fm_client_t *client = (const fm_client_t *)user;
  const fm_encoder_t e = encoder(client);
  return fm_encoding_read(&e, client->sent_chunk * client->plan.update_chunk_elements, client->scale, offset, out,
                          size);
}

static fm_status_t send_chunk(fm_client_t *client) {
  const fm_encoder_t e = encoder(client);
  const uint32_t elements = update_chunk_size(client, client->next_chunk);
  fm_status_t status =
      fm_encoding_scale(&e, client->next_chunk * client->plan.update_chunk_elements, elements, &client->scale);
  if (status == FM_OK) {
    client->sent_chunk = client->next_chunk;
    status = fm_client_send_chunk(client, elements * fm_encoding_width(e.encoding), read_chunk);
  }
  return status;
}

void fm_update_uploading(fm_client_t *client, uint32_t *wait_ms) {
  const fm_link_t *link = &client->config->link;
  while ((client->next_chunk < client->chunks) && window_has(client, client->next_chunk)) {
    client->next_chunk++;
  }
  /* A full window does not cover the chunks after it; the answer to UpdateEnd will. */
  const uint32_t known = client->window_first + (8u * (uint32_t)sizeof client->window);
  const bool told_all = (client->window_size == sizeof client->window) && (client->next_chunk >= known);
  if ((client->next_chunk >= client->chunks) || told_all) {
    fm_client_enter(client, FM_STATE_CONFIRMING);
    client->due |= FM_DUE_END;
  } else if ((client->session == FM_SESSION_READY) && !link->api->sending(link->self)) {
    const fm_status_t status = send_chunk(client);
    if (status == FM_OK) {
      client->counters.chunks_out++;
      client->next_chunk++;
      *wait_ms = 0u;
    } else if (status != FM_AGAIN) {
      fm_client_withdraw_job(client, FM_WITHDRAW_REASON_APPLICATION);
    } else {
      /* the link sets the wait */
    }
  } else {
    /* away or busy */
  }
}

/* If the plan grants a slot, the first offer needs no answer. */
void fm_update_offering(fm_client_t *client) {
  const bool begun = (client->session == FM_SESSION_READY) && ((client->due & FM_DUE_BEGIN) == 0u);
  if (begun && client->plan.slot_granted && !client->offered) {
    client->offered = true;
    fm_client_enter(client, FM_STATE_UPLOADING);
    client->next_chunk = 0u;
  }
}

/* ---- the server's answers ---- */

/* Note which chunks the server has, and send the others. */
static void upload_rest(fm_client_t *client, const fm_update_status_t *status) {
  uint32_t had = 0u;
  client->window_first = fm_smaller(status->first, client->chunks);
  client->window_size = (uint8_t)fm_smaller(status->received.size, sizeof client->window);
  if (client->window_size != 0u) {
    (void)memcpy(client->window, status->received.data, client->window_size);
  }
  for (uint32_t bit = 0u; bit < (8u * (uint32_t)client->window_size); bit++) {
    had += window_has(client, client->window_first + bit) ? 1u : 0u;
  }
  if (client->job == (uint8_t)FM_STATE_OFFERING) {
    client->counters.chunks_resumed_out += client->window_first + had;
  }
  fm_client_enter(client, FM_STATE_UPLOADING);
  client->next_chunk = client->window_first;
}

void fm_update_on_status(fm_client_t *client, const fm_update_status_t *status) {
  const bool mine =
      (status->round == client->plan.round) && (status->crc32 == client->crc32) && (client->plan.task == FM_TASK_FIT);
  const bool open = (client->job >= (uint8_t)FM_STATE_OFFERING) && (client->job <= (uint8_t)FM_STATE_CONFIRMING);
  if (!mine || !open) {
    fm_client_count_unexpected(client);
  } else if (status->state == FM_SLOT_STATE_WAIT) {
    fm_client_enter(client, FM_STATE_OFFERING);
    client->offered = true;
    client->retry_at_ms = client->now_ms + status->retry_after_ms;
    client->waiting = true;
  } else if (client->job == (uint8_t)FM_STATE_UPLOADING) {
    fm_client_count_unexpected(client); /* there was no request */
  } else {
    upload_rest(client, status);
  }
}

static void job_done(fm_client_t *client) {
  client->done_round = client->plan.round;
  fm_client_drop_job(client);
}

void fm_update_on_receipt(fm_client_t *client, const fm_receipt_t *receipt) {
  const bool mine = (receipt->round == client->plan.round) && (client->job >= (uint8_t)FM_STATE_OFFERING) &&
                    (receipt->crc32 == client->crc32);
  if (!mine) {
    fm_client_count_unexpected(client);
  } else if (client->plan.task != FM_TASK_FIT) {
    job_done(client);
  } else {
    if (!client->receipted) {
      client->receipted = true;
      client->counters.updates++;
      client->counters.partial_updates += (client->work.steps < client->work.planned_steps) ? 1u : 0u;
    }
    fm_client_enter(client, FM_STATE_HOLDING);
    client->attempts = UINT8_MAX; /* if no commit arrives: ask, but rarely */
    fm_client_arm_retry(client);
  }
}

void fm_update_on_commit(fm_client_t *client, const fm_commit_t *commit) {
  if ((client->job != (uint8_t)FM_STATE_IDLE) && (commit->round >= client->plan.round)) {
    job_done(client);
  }
}
