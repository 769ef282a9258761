/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper saves: model chunks and updates into their areas, and records of them into the journal. */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_keep_internal.h"

#define MOST_MODEL_RECORDS 32u /* per download, so that the journal wears no faster than the data it describes */

/* ---- bulk data ---- */

/* Program the next piece of the slot, from keep->cursor on. A block is erased when it is entered. */
static fm_status_t slot_piece(fm_keep_t *keep, const fm_client_t *client, const fm_keep_slot_t *slot,
                              uint32_t *budget) {
  const fm_client_config_t *config = client->config;
  const uint32_t block = keep->storage->erase_size;
  const uint32_t in_block = keep->cursor % block;
  const uint32_t done = keep->cursor - slot->at;
  const uint32_t size =
      fm_smaller(fm_smaller(FM_KEEP_PIECE, fm_keep_aligned(keep->storage, slot->bytes) - done), block - in_block);
  const uint32_t data = (done < slot->bytes) ? fm_smaller(size, slot->bytes - done) : 0u;
  uint8_t piece[FM_KEEP_PIECE];
  fm_status_t status = FM_OK;
  *budget -= fm_smaller(*budget, size);
  if (in_block == 0u) {
    status = fm_keep_erase(keep, slot->area + keep->cursor);
    *budget = 0u; /* an erase takes long, so it ends this call */
  }
  (void)memset(piece, 0xFF, sizeof piece);
  if (status == FM_OK) {
    status =
        fm_tensors_read(config->tensors, config->tensor_count, slot->mask, slot->base, slot->from + done, piece, data);
  }
  if (status == FM_OK) {
    keep->crc32 = fm_crc32(keep->crc32, piece, data);
    status = fm_keep_program(keep, slot->area + keep->cursor, piece, size);
    keep->cursor += size;
  }
  return status;
}

/* FM_OK: all of the slot is programmed. FM_AGAIN: the budget is used up. */
static fm_status_t slot_program(fm_keep_t *keep, const fm_client_t *client, const fm_keep_slot_t *slot,
                                uint32_t *budget) {
  const uint32_t end = slot->at + fm_keep_aligned(keep->storage, slot->bytes);
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (keep->cursor < end) && (*budget != 0u)) {
    status = slot_piece(keep, client, slot, budget);
  }
  return ((status == FM_OK) && (keep->cursor < end)) ? FM_AGAIN : status;
}

/* CRC of the first `size` bytes of the model in the tensors. */
uint32_t fm_keep_tensors_crc32(const fm_client_t *client, uint32_t size) {
  const fm_client_config_t *config = client->config;
  uint32_t crc = 0u;
  uint32_t at = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (at < size)) {
    uint8_t piece[FM_KEEP_PIECE];
    const uint32_t part = fm_smaller(FM_KEEP_PIECE, size - at);
    status = fm_tensors_read(config->tensors, config->tensor_count, FM_KEEP_ALL_TENSORS, fm_plan_has_base(client), at,
                             piece, part);
    crc = fm_crc32(crc, piece, part);
    at += part;
  }
  return crc;
}

/* ---- saving ---- */

uint32_t fm_keep_model_chunks(const fm_client_t *client) {
  return fm_chunk_count(client->shared, client->plan.model_chunk_elements);
}

/* Return where a plan's model is stored; its `stride` is 0 when it does not fit. */
void fm_keep_place_model(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t stride = fm_keep_aligned(keep->storage, 4u * client->plan.model_chunk_elements);
  const uint32_t last = fm_keep_model_chunks(client) - 1u;
  const uint32_t last_size = fm_keep_aligned(keep->storage, 4u * fm_job_model_chunk_size(client, last));
  const bool fits = (last_size <= keep->area_size) && (last <= ((keep->area_size - last_size) / stride)) &&
                    (fm_keep_aligned(keep->storage, 4u * client->shared) <= keep->area_size);
  keep->stride = fits ? stride : 0u;
  keep->errors += fits ? 0u : 1u;
}

/* Tell whether the newest model record describes the plan's model, whole or in part. */
bool fm_keep_has_model(fm_keep_t *keep, const fm_client_t *client, fm_keep_model_t *model) {
  const fm_plan_t *plan = &client->plan;
  return fm_keep_record(keep, FM_KEEP_RECORD_MODEL, model) && (model->version == plan->model_version) &&
         (model->model_crc32 == plan->model_crc32) && (model->chunk_elements == plan->model_chunk_elements) &&
         (model->chunks <= fm_keep_model_chunks(client));
}

/* Before overwriting the area, declare its content void, unless it is the plan's complete model. */
static fm_status_t save_job(fm_keep_t *keep, const fm_client_t *client) {
  const fm_plan_t *plan = &client->plan;
  fm_keep_model_t model;
  fm_status_t status = FM_OK;
  fm_keep_place_model(keep, client);
  keep->saving_update = false;
  keep->chunks = fm_keep_model_chunks(client);
  if ((client->job == (uint8_t)FM_STATE_DOWNLOADING) || !fm_keep_has_model(keep, client, &model) ||
      (model.chunks != keep->chunks)) {
    model.version = plan->model_version;
    model.model_crc32 = plan->model_crc32;
    model.chunk_elements = plan->model_chunk_elements;
    model.chunks = 0u;
    model.crc32 = 0u;
    keep->chunks = 0u;
    keep->crc32 = 0u;
    status = fm_keep_append(keep, FM_KEEP_RECORD_MODEL, &model);
  }
  keep->cursor = keep->chunks * keep->stride;
  return (status == FM_OK) ? fm_keep_append(keep, FM_KEEP_RECORD_JOB, plan) : status;
}

/* Make the next chunk durable. */
fm_status_t fm_keep_save_chunk(fm_keep_t *keep, const fm_client_t *client, uint32_t *budget) {
  const fm_plan_t *plan = &client->plan;
  const fm_keep_slot_t slot = {fm_keep_model_area(keep),
                               keep->chunks * keep->stride,
                               keep->chunks * 4u * plan->model_chunk_elements,
                               4u * fm_job_model_chunk_size(client, keep->chunks),
                               FM_KEEP_ALL_TENSORS,
                               fm_plan_has_base(client)};
  fm_status_t status = slot_program(keep, client, &slot, budget);
  const uint32_t total = fm_keep_model_chunks(client);
  const uint32_t step = 1u + (total / MOST_MODEL_RECORDS);
  if ((status == FM_OK) && ((((keep->chunks + 1u) % step) == 0u) || ((keep->chunks + 1u) == total))) {
    const fm_keep_model_t model = {plan->model_version, plan->model_crc32, plan->model_chunk_elements,
                                   keep->chunks + 1u, keep->crc32};
    status = fm_keep_append(keep, FM_KEEP_RECORD_MODEL, &model);
  }
  if (status == FM_OK) {
    keep->chunks++;
    keep->cursor = keep->chunks * keep->stride;
  }
  return status;
}

static fm_status_t save_model(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t target =
      (client->job == (uint8_t)FM_STATE_DOWNLOADING) ? client->next_chunk : fm_keep_model_chunks(client);
  uint32_t budget = FM_POLL_BUDGET;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (keep->chunks < target)) {
    status = fm_keep_save_chunk(keep, client, &budget);
  }
  return status;
}

/* The CRC of the firmware's settings that, besides plan and tensors, determine an update's bytes. */
uint32_t fm_keep_sealed_how(const fm_client_t *client) {
  const uint8_t how[2] = {client->encoding, client->kind};
  const char *id = client->config->device_id;
  return fm_crc32(fm_crc32(0u, how, (uint32_t)sizeof how), id, (uint32_t)strlen(id));
}

static fm_status_t save_update(fm_keep_t *keep, const fm_client_t *client) {
  const fm_keep_slot_t slot = {fm_keep_update_area(keep), 0u, 0u, 4u * client->elements, client->work.covered, false};
  uint32_t budget = FM_POLL_BUDGET;
  fm_status_t status = FM_ERR_STORAGE; /* an update cannot be used without its model */
  if (!keep->saving_update) {
    keep->saving_update = true;
    keep->cursor = 0u;
    keep->crc32 = 0u;
  }
  if (keep->chunks == fm_keep_model_chunks(client)) {
    status = slot_program(keep, client, &slot, &budget);
  }
  if (status == FM_OK) {
    fm_keep_update_t update;
    (void)memset(&update, 0, sizeof update);
    update.round = client->plan.round;
    update.crc32 = client->crc32;
    update.image_crc32 = keep->crc32;
    update.sealed_how = fm_keep_sealed_how(client);
    update.work = client->work;
    status = fm_keep_append(keep, FM_KEEP_RECORD_UPDATE, &update);
  }
  return status;
}

/* A device that declines every plan must not wear out its flash. */
static fm_status_t save_idle(fm_keep_t *keep, const fm_client_t *client) {
  uint32_t done;
  const bool known = fm_keep_record(keep, FM_KEEP_RECORD_IDLE, &done) && (done == client->done_round);
  return known ? FM_OK : fm_keep_append(keep, FM_KEEP_RECORD_IDLE, &client->done_round);
}

fm_status_t fm_keep_save(void *self, const fm_client_t *client, uint8_t what) {
  fm_keep_t *keep = (fm_keep_t *)self;
  fm_status_t status;
  if (what == (uint8_t)FM_KEEP_JOB) {
    status = save_job(keep, client);
    /* Without the job record nothing is found, so a second try writes it into the other half. */
    status = (status == FM_OK) ? FM_OK : save_job(keep, client);
  } else if (what == (uint8_t)FM_KEEP_IDLE) {
    status = save_idle(keep, client);
  } else if (keep->stride == 0u) {
    status = FM_ERR_STORAGE; /* it does not fit, or failed before */
  } else {
    status = (what == (uint8_t)FM_KEEP_MODEL) ? save_model(keep, client) : save_update(keep, client);
    if ((status != FM_OK) && (status != FM_AGAIN)) {
      keep->stride = 0u;
    }
  }
  return status;
}
