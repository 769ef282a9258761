/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper: start, and restore a job after a reset. */
#include "fedmote/fm_keep.h"

#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_keep_internal.h"

#define HALF_LEAST 1024u
#define MOST_ERASE_SIZE 0x100000u
#define MOST_STORAGE 0x40000000u
#define MOST_ELEMENTS (MOST_STORAGE / 64u) /* with the padding of one-element chunks, that is the most storage */

/* ---- loading ---- */

/* Read `slot` of the storage and continue *crc over it. With `write`, also copy it into the tensors. */
static fm_status_t read_slot(fm_keep_t *keep, const fm_client_t *client, const fm_keep_slot_t *slot, bool write,
                             uint32_t *crc) {
  const fm_client_config_t *config = client->config;
  uint32_t done = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (done < slot->bytes)) {
    uint8_t piece[FM_KEEP_PIECE];
    const uint32_t size = fm_smaller(FM_KEEP_PIECE, slot->bytes - done);
    status = fm_keep_read(keep, slot->area + slot->at + done, piece, size);
    if (status == FM_OK) {
      *crc = fm_crc32(*crc, piece, size);
    }
    if ((status == FM_OK) && write) {
      status = fm_tensors_write(config->tensors, config->tensor_count, slot->mask, slot->base, slot->from + done, piece,
                                size);
    }
    done += size;
  }
  return status;
}

/* A power cut left the block after the last durable chunk partly written: write that block again from the tensors. The
 * journal declares its chunks durable again only after that. */
static void repair_block(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t block = keep->storage->erase_size;
  const uint32_t end = keep->chunks * keep->stride;
  const uint32_t start = end - (end % block);
  if ((start != end) &&
      !fm_keep_blank(keep, fm_keep_model_area(keep) + end, fm_keep_model_area(keep) + start + block)) {
    const fm_plan_t *plan = &client->plan;
    const uint32_t target = keep->chunks;
    const uint32_t bytes = 4u * plan->model_chunk_elements;
    const uint32_t whole = start / keep->stride;
    const uint32_t whole_crc = fm_keep_tensors_crc32(client, whole * bytes);
    const fm_keep_model_t model = {plan->model_version, plan->model_crc32, plan->model_chunk_elements, whole,
                                   whole_crc};
    fm_status_t status = fm_keep_append(keep, FM_KEEP_RECORD_MODEL, &model);
    keep->chunks = whole;
    keep->cursor = start;
    keep->crc32 = fm_keep_tensors_crc32(client, (whole * bytes) + fm_smaller(start - (whole * keep->stride), bytes));
    while (((status == FM_OK) || (status == FM_AGAIN)) && (keep->chunks < target)) {
      uint32_t budget = FM_POLL_BUDGET;
      status = fm_keep_save_chunk(keep, client, &budget);
    }
    keep->stride = ((status == FM_OK) || (status == FM_AGAIN)) ? keep->stride : 0u;
  }
}

/* Tell whether the chunks of `model` have its CRC. With `write`, also copy them into the tensors. */
static bool read_chunks(fm_keep_t *keep, fm_client_t *client, const fm_keep_model_t *model, bool write) {
  const uint32_t bytes = 4u * client->plan.model_chunk_elements;
  uint32_t crc = 0u;
  fm_status_t status = FM_OK;
  for (uint32_t c = 0u; (status == FM_OK) && (c < model->chunks); c++) {
    const fm_keep_slot_t slot = {fm_keep_model_area(keep),
                                 c * keep->stride,
                                 c * bytes,
                                 4u * fm_job_model_chunk_size(client, c),
                                 FM_KEEP_ALL_TENSORS,
                                 true};
    status = read_slot(keep, client, &slot, write, &crc);
  }
  return (status == FM_OK) && (crc == model->crc32);
}

/* Load the durable part of the model into the tensors, if its CRC is right. */
static void load_model(fm_keep_t *keep, fm_client_t *client) {
  fm_keep_model_t model;
  keep->chunks = 0u;
  keep->crc32 = 0u;
  (void)memset(&model, 0, sizeof model);
  if (fm_keep_has_model(keep, client, &model)) {
    if (read_chunks(keep, client, &model, false) && read_chunks(keep, client, &model, true)) {
      keep->chunks = model.chunks;
      keep->crc32 = model.crc32;
    } else {
      keep->errors++;
    }
  }
  keep->cursor = keep->chunks * keep->stride;
  keep->restored = keep->chunks;
  if (keep->chunks == fm_keep_model_chunks(client)) {
    client->model_version = model.version;
    client->model_crc32 = model.model_crc32;
  } else {
    repair_block(keep, client);
  }
}

/* Load a finished update into the working tensors. False: there is no complete one. */
static bool load_update(fm_keep_t *keep, fm_client_t *client) {
  fm_keep_update_t update;
  bool loaded = fm_keep_record(keep, FM_KEEP_RECORD_UPDATE, &update) && (update.round == client->plan.round) &&
                (update.sealed_how == fm_keep_sealed_how(client)) && (keep->chunks == fm_keep_model_chunks(client));
  if (loaded) {
    const fm_client_config_t *config = client->config;
    const uint32_t elements = fm_tensors_elements(config->tensors, config->tensor_count, update.work.covered);
    const fm_keep_slot_t slot = {fm_keep_update_area(keep), 0u, 0u, 4u * elements, update.work.covered, false};
    uint32_t crc = 0u;
    loaded = (read_slot(keep, client, &slot, false, &crc) == FM_OK) && (crc == update.image_crc32);
    keep->errors += loaded ? 0u : 1u;
    if (loaded) {
      (void)read_slot(keep, client, &slot, true, &crc);
      if (!fm_plan_has_base(client)) {
        client->model_version = 0u; /* the tensors hold the update now */
      }
      client->work = update.work;
      client->crc32 = update.crc32;
      client->elements = elements;
      client->chunks = fm_chunk_count(elements, client->plan.update_chunk_elements);
      keep->restored++;
    }
  }
  return loaded;
}

/* Continue the job after its newest durable step. */
static void load_state(fm_keep_t *keep, fm_client_t *client) {
  client->restored = true;
  if (load_update(keep, client)) {
    client->offered = true;
    client->job = (uint8_t)FM_STATE_OFFERING;
  } else if (keep->chunks == fm_keep_model_chunks(client)) {
    client->from_base = fm_plan_has_base(client);
    client->job = (uint8_t)FM_STATE_CHECKING;
  } else {
    client->next_chunk = keep->chunks;
    client->job = (uint8_t)FM_STATE_DOWNLOADING;
  }
}

/* Return the CRC of everything that the records' meaning depends on. */
static uint32_t identity(const fm_keep_t *keep, const fm_client_t *client) {
  const fm_client_config_t *config = client->config;
  uint32_t local = 0u; /* bits as in fm_work_t.covered */
  for (uint32_t t = 0u; t < config->tensor_count; t++) {
    local |= config->tensors[t].local ? (uint32_t)FM_TENSOR_BIT(t) : 0u;
  }
  const uint32_t what[6] = {
      FM_VERSION,          (uint32_t)(sizeof(fm_plan_t) + sizeof(fm_keep_update_t)),       client->shared,
      keep->storage->size, fm_tensors_layout_crc32(config->tensors, config->tensor_count), local};
  return fm_crc32(0u, what, (uint32_t)sizeof what);
}

static void keep_load(void *self, fm_client_t *client) {
  fm_keep_t *keep = (fm_keep_t *)self;
  keep->identity = identity(keep, client);
  fm_keep_mount(keep);
  if (fm_keep_record(keep, FM_KEEP_RECORD_JOB, &client->plan) && fm_plan_valid(client, &client->plan) &&
      fm_plan_choose_encoding(client, &client->plan)) {
    const bool idle = fm_keep_record(keep, FM_KEEP_RECORD_IDLE, &client->done_round);
    fm_keep_model_t model;
    fm_keep_place_model(keep, client);
    if ((keep->stride != 0u) &&
        (!idle || (fm_keep_has_model(keep, client, &model) && (model.chunks == fm_keep_model_chunks(client))))) {
      load_model(keep, client); /* part of a model is useful only to its job */
    }
    if (!idle) {
      load_state(keep, client);
    }
  }
}

/* ---- starting ---- */

static bool sizes_valid(const fm_storage_t *storage) {
  const uint32_t program = storage->program_size;
  return (program >= 1u) && (program <= FM_KEEP_PIECE) && ((program & (program - 1u)) == 0u) &&
         (storage->erase_size >= 16u) && (storage->erase_size <= MOST_ERASE_SIZE) &&
         ((storage->erase_size % program) == 0u);
}

static uint32_t whole_blocks(const fm_storage_t *storage, uint32_t size) {
  return ((size + storage->erase_size - 1u) / storage->erase_size) * storage->erase_size;
}

uint32_t fm_keep_size(const fm_storage_t *storage, uint32_t elements, uint32_t least_chunk_elements) {
  uint32_t size = 0u;
  if ((storage != NULL) && sizes_valid(storage) && (least_chunk_elements != 0u) && (elements <= MOST_ELEMENTS)) {
    const uint32_t padding = (storage->program_size > 4u) ? (storage->program_size - 4u) : 0u;
    const uint32_t area = (4u * elements) + (fm_chunk_count(elements, least_chunk_elements) * padding);
    size = 2u * (whole_blocks(storage, HALF_LEAST) + whole_blocks(storage, area));
  }
  return size;
}

static bool storage_valid(const fm_storage_t *storage) {
  return (storage->read != NULL) && (storage->program != NULL) && (storage->erase != NULL) && sizes_valid(storage) &&
         (storage->size <= MOST_STORAGE) && ((storage->size % storage->erase_size) == 0u);
}

fm_status_t fm_keep_init(fm_keep_t *keep, const fm_storage_t *storage, fm_keeper_t *keeper) {
  static const fm_keeper_api_t api = {keep_load, fm_keep_save};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((keep != NULL) && (storage != NULL) && (keeper != NULL) && storage_valid(storage)) {
    const uint32_t half = whole_blocks(storage, HALF_LEAST);
    status = (storage->size >= (2u * (half + storage->erase_size))) ? FM_OK : FM_ERR_BUFFER;
    if (status == FM_OK) {
      (void)memset(keep, 0, sizeof *keep);
      keep->storage = storage;
      keep->half_size = half;
      keep->area_size = whole_blocks(storage, ((storage->size / 2u) - half) - (storage->erase_size - 1u));
      keeper->api = &api;
      keeper->self = keep;
    }
  }
  return status;
}
