/* SPDX-License-Identifier: Apache-2.0 */
/* A journal of what is durable, and two areas of bulk data that it vouches for.
 *
 * A half of the journal: a header (magic, generation, identity, CRC-32), then records (type, size, payload, CRC-32),
 * then blank bytes. Only the newest record of each type means anything. Appending to a half that is full, or whose end
 * a power cut tore, writes the newest records and the new one into the other half, whose header comes last: until it is
 * in, the old half stands. The half whose valid header has the higher generation is the one in use.
 */
#include "fedmote/fm_keep.h"

#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_client_internal.h"

#define PIECE 32u /* bytes on the stack at a time; a multiple of every program size */
#define COPY 16u
#define MAGIC 0x314B4D46u
#define HEADER_SIZE 16u
#define HALF_LEAST 1024u
#define MOST_READS 3u
#define MOST_ERASE_SIZE 0x100000u
#define MOST_STORAGE 0x40000000u
#define MOST_ELEMENTS (MOST_STORAGE / 64u) /* with the padding of one-element chunks, that is the most storage */
#define MOST_MODEL_RECORDS 32u             /* of one download: the journal must not wear faster than what it is about */
#define RECORD_EXTRA 8u                    /* bytes around a payload: 4 before, 4 after */
#define ALL_TENSORS UINT32_MAX

/* Payloads: an fm_plan_t, the two structs below, and the round that was done last. */
enum { RECORD_JOB = 0, RECORD_MODEL, RECORD_UPDATE, RECORD_IDLE, RECORD_TYPES };

typedef struct {
  uint32_t version;
  uint32_t model_crc32;
  uint32_t chunk_elements;
  uint32_t chunks;
  uint32_t crc32; /* of their data */
} model_record_t;

typedef struct {
  uint32_t round;
  uint32_t crc32; /* the update's identity */
  uint32_t image_crc32;
  uint32_t sealed_how; /* see sealed_how() */
  fm_work_t work;
} update_record_t;

/* ---- the storage ---- */

static uint32_t aligned(const fm_storage_t *storage, uint32_t size) {
  return (size + storage->program_size - 1u) & ~(storage->program_size - 1u);
}

static fm_status_t counted(fm_keep_t *keep, fm_status_t status) {
  if (status != FM_OK) {
    keep->errors++;
  }
  return (status == FM_OK) ? FM_OK : FM_ERR_STORAGE;
}

/* Tried again: a brown-out may leave a chip busy, and what cannot be read at the start is taken for not there. */
static fm_status_t storage_read(fm_keep_t *keep, uint32_t offset, void *out, uint32_t size) {
  fm_status_t status = FM_AGAIN;
  for (uint32_t i = 0u; (i < MOST_READS) && (status != FM_OK); i++) {
    status = keep->storage->read(keep->storage->user, offset, (uint8_t *)out, size);
  }
  return counted(keep, status);
}

static fm_status_t storage_program(fm_keep_t *keep, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  const fm_status_t status = keep->storage->program(keep->storage->user, offset, bytes, size);
  return counted(keep, status);
}

static fm_status_t storage_erase(fm_keep_t *keep, uint32_t offset) {
  const fm_status_t status = keep->storage->erase(keep->storage->user, offset);
  return counted(keep, status);
}

static bool storage_blank(fm_keep_t *keep, uint32_t offset, uint32_t end) {
  bool blank = true;
  uint32_t at = offset;
  while (blank && (at < end)) {
    uint8_t piece[PIECE];
    const uint32_t size = fm_smaller(PIECE, end - at);
    blank = storage_read(keep, at, piece, size) == FM_OK;
    for (uint32_t i = 0u; blank && (i < size); i++) {
      blank = piece[i] == 0xFFu;
    }
    at += size;
  }
  return blank;
}

/* ---- writing records ---- */

/* Gathers bytes into pieces that the storage can program. */
typedef struct {
  fm_keep_t *keep;
  uint32_t offset; /* of the piece */
  uint32_t crc32;
  uint32_t fill;
  fm_status_t status;
  uint8_t piece[PIECE];
} writer_t;

static void writer_flush(writer_t *writer) {
  const uint32_t size = aligned(writer->keep->storage, writer->fill);
  if ((writer->status == FM_OK) && (size != 0u)) {
    (void)memset(&writer->piece[writer->fill], 0xFF, (size_t)(size - writer->fill));
    writer->status = storage_program(writer->keep, writer->offset, writer->piece, size);
  }
  writer->offset += size;
  writer->fill = 0u;
}

static void writer_put(writer_t *writer, const void *bytes, uint32_t size) {
  const uint8_t *from = (const uint8_t *)bytes;
  uint32_t done = 0u;
  writer->crc32 = fm_crc32(writer->crc32, bytes, size);
  while (done < size) {
    const uint32_t part = fm_smaller(size - done, PIECE - writer->fill);
    (void)memcpy(&writer->piece[writer->fill], &from[done], (size_t)part);
    writer->fill += part;
    done += part;
    if (writer->fill == PIECE) {
      writer_flush(writer);
    }
  }
}

static void writer_start(writer_t *writer, fm_keep_t *keep, uint32_t offset, uint32_t seed) {
  writer->keep = keep;
  writer->offset = offset;
  writer->crc32 = seed;
  writer->fill = 0u;
  writer->status = FM_OK;
}

/* The CRC so far, then pad. */
static fm_status_t writer_finish(writer_t *writer) {
  const uint32_t crc = writer->crc32;
  writer_put(writer, &crc, (uint32_t)sizeof crc);
  writer_flush(writer);
  return writer->status;
}

static uint32_t record_seed(const fm_keep_t *keep) { return keep->identity ^ keep->generation; }

static uint32_t record_size(const fm_keep_t *keep, uint32_t payload) {
  return aligned(keep->storage, payload + RECORD_EXTRA);
}

/* Begin a record at the end of the half in use. */
static void record_start(writer_t *writer, fm_keep_t *keep, uint32_t type, uint32_t size) {
  const uint8_t head[4] = {(uint8_t)(type + 1u), (uint8_t)size, (uint8_t)(size >> 8), 0u};
  writer_start(writer, keep, keep->half + keep->end, record_seed(keep));
  writer_put(writer, head, (uint32_t)sizeof head);
}

static fm_status_t record_finish(writer_t *writer, uint32_t type, uint32_t size) {
  fm_keep_t *keep = writer->keep;
  keep->records[type] = keep->end;
  keep->end += record_size(keep, size);
  return writer_finish(writer);
}

static fm_status_t record_write(fm_keep_t *keep, uint32_t type, const void *payload, uint32_t size) {
  writer_t writer;
  record_start(&writer, keep, type, size);
  writer_put(&writer, payload, size);
  return record_finish(&writer, type, size);
}

/* A record of type `type` makes others meaningless. */
static void record_supersede(fm_keep_t *keep, uint32_t type) {
  if ((type == (uint32_t)RECORD_JOB) || (type == (uint32_t)RECORD_IDLE)) {
    keep->records[RECORD_UPDATE] = 0u;
  }
  if (type == (uint32_t)RECORD_JOB) {
    keep->records[RECORD_IDLE] = 0u;
  }
}

/* Sizes of the payloads, by type. */
static uint32_t payload_size(uint32_t type) {
  static const uint8_t sizes[RECORD_TYPES] = {(uint8_t)sizeof(fm_plan_t), (uint8_t)sizeof(model_record_t),
                                              (uint8_t)sizeof(update_record_t), (uint8_t)sizeof(uint32_t)};
  return sizes[type];
}

/* Copy the newest record of `type`, at `from` of the storage, to the end of the half in use. */
static fm_status_t record_copy(fm_keep_t *keep, uint32_t from, uint32_t type) {
  const uint32_t size = payload_size(type);
  writer_t writer;
  uint32_t done = 0u;
  fm_status_t status = FM_OK;
  record_start(&writer, keep, type, size);
  while ((status == FM_OK) && (done < size)) {
    uint8_t piece[COPY];
    const uint32_t part = fm_smaller(COPY, size - done);
    status = storage_read(keep, from + 4u + done, piece, part);
    writer_put(&writer, piece, part);
    done += part;
  }
  return (status == FM_OK) ? record_finish(&writer, type, size) : status;
}

static fm_status_t header_write(fm_keep_t *keep) {
  const uint32_t head[3] = {MAGIC, keep->generation, keep->identity};
  writer_t writer;
  writer_start(&writer, keep, keep->half, 0u);
  writer_put(&writer, head, (uint32_t)sizeof head);
  return writer_finish(&writer);
}

static fm_status_t half_erase(fm_keep_t *keep, uint32_t half) {
  fm_status_t status = FM_OK;
  for (uint32_t at = 0u; (status == FM_OK) && (at < keep->half_size); at += keep->storage->erase_size) {
    status = storage_erase(keep, half + at);
  }
  return status;
}

/* Which half is in use, and what of it matters. */
typedef struct {
  uint32_t half;
  uint32_t generation;
  uint32_t records[RECORD_TYPES];
} half_t;

/* The newest records but one of `type`, and then that one, into an empty half. */
static fm_status_t half_fill(fm_keep_t *keep, const half_t *before, uint32_t type, const void *payload) {
  fm_status_t status = half_erase(keep, keep->half);
  keep->end = aligned(keep->storage, HEADER_SIZE);
  for (uint32_t t = 0u; (status == FM_OK) && (t < (uint32_t)RECORD_TYPES); t++) {
    if ((before->records[t] != 0u) && (t != type)) {
      status = record_copy(keep, before->half + before->records[t], t);
    }
  }
  return (status == FM_OK) ? record_write(keep, type, payload, payload_size(type)) : status;
}

static bool record_valid(fm_keep_t *keep, uint32_t at, uint32_t *type);

/* What decayed since it was found must not be copied under a good CRC. Without its end a job must not come back. */
static void records_check(fm_keep_t *keep) {
  for (uint32_t t = 0u; t < (uint32_t)RECORD_TYPES; t++) {
    uint32_t type = t;
    if ((keep->records[t] != 0u) && (!record_valid(keep, keep->records[t], &type) || (type != t))) {
      keep->records[t] = 0u;
      keep->records[RECORD_JOB] = (t == (uint32_t)RECORD_IDLE) ? 0u : keep->records[RECORD_JOB];
    }
  }
}

/* The newest records, and the new one, into the other half. */
static fm_status_t journal_turn(fm_keep_t *keep, uint32_t type, const void *payload) {
  half_t before = {keep->half, keep->generation, {0u, 0u, 0u, 0u}};
  fm_status_t status;
  records_check(keep);
  (void)memcpy(before.records, keep->records, sizeof before.records);
  keep->half = ((before.generation != 0u) && (before.half == 0u)) ? keep->half_size : 0u;
  keep->generation = (before.generation == UINT32_MAX) ? 1u : (before.generation + 1u);
  status = half_fill(keep, &before, type, payload);
  if (status == FM_OK) {
    status = header_write(keep);
  }
  if (status != FM_OK) {
    keep->half = before.half;
    keep->generation = before.generation;
    (void)memcpy(keep->records, before.records, sizeof keep->records);
    keep->end = keep->half_size;
  }
  return status;
}

static fm_status_t journal_append(fm_keep_t *keep, uint32_t type, const void *payload) {
  fm_status_t status;
  record_supersede(keep, type);
  if (type == (uint32_t)RECORD_JOB) {
    keep->records[RECORD_JOB] = 0u; /* if the new one fails, the old one without its end must not come back */
  }
  if ((keep->generation == 0u) || ((keep->end + record_size(keep, payload_size(type))) > keep->half_size)) {
    status = journal_turn(keep, type, payload);
  } else {
    status = record_write(keep, type, payload, payload_size(type));
    if (status != FM_OK) {
      keep->records[type] = 0u;
      keep->end = keep->half_size; /* nobody knows what is there now */
    }
  }
  return status;
}

/* ---- reading the journal ---- */

/* The payload of the newest record of `type`. False: there is none. */
static bool record_read(fm_keep_t *keep, uint32_t type, void *payload) {
  return (keep->records[type] != 0u) &&
         (storage_read(keep, keep->half + keep->records[type] + 4u, payload, payload_size(type)) == FM_OK);
}

/* Does the CRC of the record at `at` of the storage, with a payload of `size` bytes, say that it is what was written?
 */
static bool record_intact(fm_keep_t *keep, uint32_t at, uint32_t size) {
  uint32_t crc = record_seed(keep);
  uint32_t stored = ~crc;
  uint32_t done = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (done < (4u + size))) {
    uint8_t piece[COPY];
    const uint32_t part = fm_smaller(COPY, 4u + size - done);
    status = storage_read(keep, at + done, piece, part);
    crc = fm_crc32(crc, piece, part);
    done += part;
  }
  if (status == FM_OK) {
    status = storage_read(keep, at + done, &stored, (uint32_t)sizeof stored);
  }
  return (status == FM_OK) && (stored == crc);
}

/* Is there a whole record at `at` of the half in use? *type is set. */
static bool record_valid(fm_keep_t *keep, uint32_t at, uint32_t *type) {
  uint8_t head[4];
  bool valid = ((at + RECORD_EXTRA) <= keep->half_size) && (storage_read(keep, keep->half + at, head, 4u) == FM_OK);
  if (valid) {
    *type = (uint32_t)head[0] - 1u;
    valid = (head[0] >= 1u) && (*type < (uint32_t)RECORD_TYPES);
  }
  if (valid) {
    const uint32_t size = payload_size(*type);
    valid = ((((uint32_t)head[2] << 8) | head[1]) == size) && ((at + record_size(keep, size)) <= keep->half_size);
  }
  if (valid) {
    valid = record_intact(keep, keep->half + at, payload_size(*type));
  }
  return valid;
}

/* Find the newest records of the half in use. */
static void journal_scan(fm_keep_t *keep) {
  uint32_t at = aligned(keep->storage, HEADER_SIZE);
  uint32_t type = 0u;
  while (record_valid(keep, at, &type)) {
    keep->records[type] = at;
    record_supersede(keep, type);
    at += record_size(keep, payload_size(type));
  }
  keep->end = storage_blank(keep, keep->half + at, keep->half + keep->half_size) ? at : keep->half_size;
}

/* Generation of a half's header; 0: none that is valid and this firmware's. */
static uint32_t half_generation(fm_keep_t *keep, uint32_t half) {
  uint32_t head[4] = {0u, 0u, 0u, 0u};
  uint32_t generation = 0u;
  if ((storage_read(keep, half, head, HEADER_SIZE) == FM_OK) && (head[0] == MAGIC) && (head[2] == keep->identity) &&
      (fm_crc32(0u, head, 12u) == head[3])) {
    generation = head[1];
  }
  return generation;
}

static void journal_mount(fm_keep_t *keep) {
  const uint32_t first = half_generation(keep, 0u);
  const uint32_t second = half_generation(keep, keep->half_size);
  const bool newer = (second - first) < 0x80000000u; /* it may wrap */
  const bool use_second = (second != 0u) && ((first == 0u) || newer);
  keep->half = use_second ? keep->half_size : 0u;
  keep->generation = use_second ? second : first;
  (void)memset(keep->records, 0, sizeof keep->records);
  keep->end = keep->half_size;
  if (keep->generation != 0u) {
    journal_scan(keep);
  }
}

/* ---- bulk data ---- */

static uint32_t model_area(const fm_keep_t *keep) { return 2u * keep->half_size; }
static uint32_t update_area(const fm_keep_t *keep) { return model_area(keep) + keep->area_size; }

/* What of the tensors goes where in an area. */
typedef struct {
  uint32_t area;
  uint32_t at;    /* offset within the area */
  uint32_t from;  /* offset within the image of the tensors in `mask` */
  uint32_t bytes; /* of the image */
  uint32_t mask;
  bool base; /* read the base copies; write them too */
} slot_t;

/* Program the next piece of the slot, from keep->cursor on. A block is erased when it is entered. */
static fm_status_t slot_piece(fm_keep_t *keep, const fm_client_t *client, const slot_t *slot, uint32_t *budget) {
  const fm_client_config_t *config = client->config;
  const uint32_t block = keep->storage->erase_size;
  const uint32_t in_block = keep->cursor % block;
  const uint32_t done = keep->cursor - slot->at;
  const uint32_t size = fm_smaller(fm_smaller(PIECE, aligned(keep->storage, slot->bytes) - done), block - in_block);
  const uint32_t data = (done < slot->bytes) ? fm_smaller(size, slot->bytes - done) : 0u;
  uint8_t piece[PIECE];
  fm_status_t status = FM_OK;
  *budget -= fm_smaller(*budget, size);
  if (in_block == 0u) {
    status = storage_erase(keep, slot->area + keep->cursor);
    *budget = 0u; /* an erase takes its time */
  }
  (void)memset(piece, 0xFF, sizeof piece);
  if (status == FM_OK) {
    status =
        fm_tensors_read(config->tensors, config->tensor_count, slot->mask, slot->base, slot->from + done, piece, data);
  }
  if (status == FM_OK) {
    keep->crc32 = fm_crc32(keep->crc32, piece, data);
    status = storage_program(keep, slot->area + keep->cursor, piece, size);
    keep->cursor += size;
  }
  return status;
}

/* FM_OK: all of the slot is programmed. FM_AGAIN: the budget is used up. */
static fm_status_t slot_program(fm_keep_t *keep, const fm_client_t *client, const slot_t *slot, uint32_t *budget) {
  const uint32_t end = slot->at + aligned(keep->storage, slot->bytes);
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (keep->cursor < end) && (*budget != 0u)) {
    status = slot_piece(keep, client, slot, budget);
  }
  return ((status == FM_OK) && (keep->cursor < end)) ? FM_AGAIN : status;
}

/* CRC of the first `size` bytes of the model in the tensors. */
static uint32_t tensors_crc32(const fm_client_t *client, uint32_t size) {
  const fm_client_config_t *config = client->config;
  uint32_t crc = 0u;
  uint32_t at = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (at < size)) {
    uint8_t piece[PIECE];
    const uint32_t part = fm_smaller(PIECE, size - at);
    status =
        fm_tensors_read(config->tensors, config->tensor_count, ALL_TENSORS, fm_job_has_base(client), at, piece, part);
    crc = fm_crc32(crc, piece, part);
    at += part;
  }
  return crc;
}

/* ---- saving ---- */

static uint32_t model_chunks(const fm_client_t *client) {
  return fm_chunk_count(client->shared, client->plan.model_chunk_elements);
}

/* Where a plan's model lies; its `stride` is 0 when it does not fit. */
static void model_place(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t stride = aligned(keep->storage, 4u * client->plan.model_chunk_elements);
  const uint32_t last = model_chunks(client) - 1u;
  const uint32_t last_size = aligned(keep->storage, 4u * fm_job_model_chunk_size(client, last));
  const bool fits = (last_size <= keep->area_size) && (last <= ((keep->area_size - last_size) / stride)) &&
                    (aligned(keep->storage, 4u * client->shared) <= keep->area_size);
  keep->stride = fits ? stride : 0u;
  keep->errors += fits ? 0u : 1u;
}

/* Is the plan's model, or its beginning, what the newest record of a model speaks of? */
static bool model_is_plans(fm_keep_t *keep, const fm_client_t *client, model_record_t *model) {
  const fm_plan_t *plan = &client->plan;
  return record_read(keep, RECORD_MODEL, model) && (model->version == plan->model_version) &&
         (model->model_crc32 == plan->model_crc32) && (model->chunk_elements == plan->model_chunk_elements) &&
         (model->chunks <= model_chunks(client));
}

/* What the area held before is void before it is overwritten, unless it is the plan's model, whole. */
static fm_status_t save_job(fm_keep_t *keep, const fm_client_t *client) {
  const fm_plan_t *plan = &client->plan;
  model_record_t model;
  fm_status_t status = FM_OK;
  model_place(keep, client);
  keep->saving_update = false;
  keep->chunks = model_chunks(client);
  if ((client->job == (uint8_t)FM_STATE_DOWNLOADING) || !model_is_plans(keep, client, &model) ||
      (model.chunks != keep->chunks)) {
    model.version = plan->model_version;
    model.model_crc32 = plan->model_crc32;
    model.chunk_elements = plan->model_chunk_elements;
    model.chunks = 0u;
    model.crc32 = 0u;
    keep->chunks = 0u;
    keep->crc32 = 0u;
    status = journal_append(keep, RECORD_MODEL, &model);
  }
  keep->cursor = keep->chunks * keep->stride;
  return (status == FM_OK) ? journal_append(keep, RECORD_JOB, plan) : status;
}

/* Make the next chunk durable. */
static fm_status_t save_chunk(fm_keep_t *keep, const fm_client_t *client, uint32_t *budget) {
  const fm_plan_t *plan = &client->plan;
  const slot_t slot = {model_area(keep),
                       keep->chunks * keep->stride,
                       keep->chunks * 4u * plan->model_chunk_elements,
                       4u * fm_job_model_chunk_size(client, keep->chunks),
                       ALL_TENSORS,
                       fm_job_has_base(client)};
  fm_status_t status = slot_program(keep, client, &slot, budget);
  const uint32_t total = model_chunks(client);
  const uint32_t step = 1u + (total / MOST_MODEL_RECORDS);
  if ((status == FM_OK) && ((((keep->chunks + 1u) % step) == 0u) || ((keep->chunks + 1u) == total))) {
    const model_record_t model = {plan->model_version, plan->model_crc32, plan->model_chunk_elements, keep->chunks + 1u,
                                  keep->crc32};
    status = journal_append(keep, RECORD_MODEL, &model);
  }
  if (status == FM_OK) {
    keep->chunks++;
    keep->cursor = keep->chunks * keep->stride;
  }
  return status;
}

static fm_status_t save_model(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t target = (client->job == (uint8_t)FM_STATE_DOWNLOADING) ? client->next_chunk : model_chunks(client);
  uint32_t budget = FM_POLL_BUDGET;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (keep->chunks < target)) {
    status = save_chunk(keep, client, &budget);
  }
  return status;
}

/* Of what, besides plan and tensors, an update's bytes come from: this firmware's settings. */
static uint32_t sealed_how(const fm_client_t *client) {
  const uint8_t how[2] = {client->encoding, client->kind};
  const char *id = client->config->device_id;
  return fm_crc32(fm_crc32(0u, how, (uint32_t)sizeof how), id, (uint32_t)strlen(id));
}

static fm_status_t save_update(fm_keep_t *keep, const fm_client_t *client) {
  const slot_t slot = {update_area(keep), 0u, 0u, 4u * client->elements, client->work.covered, false};
  uint32_t budget = FM_POLL_BUDGET;
  fm_status_t status = FM_ERR_STORAGE; /* an update is worth nothing without its model */
  if (!keep->saving_update) {
    keep->saving_update = true;
    keep->cursor = 0u;
    keep->crc32 = 0u;
  }
  if (keep->chunks == model_chunks(client)) {
    status = slot_program(keep, client, &slot, &budget);
  }
  if (status == FM_OK) {
    update_record_t update;
    (void)memset(&update, 0, sizeof update);
    update.round = client->plan.round;
    update.crc32 = client->crc32;
    update.image_crc32 = keep->crc32;
    update.sealed_how = sealed_how(client);
    update.work = client->work;
    status = journal_append(keep, RECORD_UPDATE, &update);
  }
  return status;
}

/* A device that declines every plan must not wear its flash out. */
static fm_status_t save_idle(fm_keep_t *keep, const fm_client_t *client) {
  uint32_t done;
  const bool known = record_read(keep, RECORD_IDLE, &done) && (done == client->done_round);
  return known ? FM_OK : journal_append(keep, RECORD_IDLE, &client->done_round);
}

static fm_status_t keep_save(void *self, const fm_client_t *client, uint8_t what) {
  fm_keep_t *keep = (fm_keep_t *)self;
  fm_status_t status;
  if (what == (uint8_t)FM_KEEP_JOB) {
    status = save_job(keep, client);
    status =
        (status == FM_OK) ? FM_OK : save_job(keep, client); /* nothing of it is found without: into the other half */
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

/* ---- loading ---- */

/* Read `slot` of the storage, and with `write` put it back into the tensors. */
static fm_status_t put_back(fm_keep_t *keep, const fm_client_t *client, const slot_t *slot, bool write, uint32_t *crc) {
  const fm_client_config_t *config = client->config;
  uint32_t done = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (done < slot->bytes)) {
    uint8_t piece[PIECE];
    const uint32_t size = fm_smaller(PIECE, slot->bytes - done);
    status = storage_read(keep, slot->area + slot->at + done, piece, size);
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

/* A power cut left the block behind the last durable chunk neither blank nor whole: write that block anew out of the
 * tensors. The journal vouches for its chunks again only once they are back. */
static void mend_block(fm_keep_t *keep, const fm_client_t *client) {
  const uint32_t block = keep->storage->erase_size;
  const uint32_t end = keep->chunks * keep->stride;
  const uint32_t start = end - (end % block);
  if ((start != end) && !storage_blank(keep, model_area(keep) + end, model_area(keep) + start + block)) {
    const fm_plan_t *plan = &client->plan;
    const uint32_t target = keep->chunks;
    const uint32_t bytes = 4u * plan->model_chunk_elements;
    const uint32_t whole = start / keep->stride;
    const uint32_t whole_crc = tensors_crc32(client, whole * bytes);
    const model_record_t model = {plan->model_version, plan->model_crc32, plan->model_chunk_elements, whole, whole_crc};
    fm_status_t status = journal_append(keep, RECORD_MODEL, &model);
    keep->chunks = whole;
    keep->cursor = start;
    keep->crc32 = tensors_crc32(client, (whole * bytes) + fm_smaller(start - (whole * keep->stride), bytes));
    while (((status == FM_OK) || (status == FM_AGAIN)) && (keep->chunks < target)) {
      uint32_t budget = FM_POLL_BUDGET;
      status = save_chunk(keep, client, &budget);
    }
    keep->stride = ((status == FM_OK) || (status == FM_AGAIN)) ? keep->stride : 0u;
  }
}

/* The first `count` chunks: is their CRC `wanted`? With `write` they come into the tensors. */
static bool chunks_back(fm_keep_t *keep, fm_client_t *client, const model_record_t *model, bool write) {
  const uint32_t bytes = 4u * client->plan.model_chunk_elements;
  uint32_t crc = 0u;
  fm_status_t status = FM_OK;
  for (uint32_t c = 0u; (status == FM_OK) && (c < model->chunks); c++) {
    const slot_t slot = {
        model_area(keep), c * keep->stride, c * bytes, 4u * fm_job_model_chunk_size(client, c), ALL_TENSORS, true};
    status = put_back(keep, client, &slot, write, &crc);
  }
  return (status == FM_OK) && (crc == model->crc32);
}

/* The model, as far as it is durable, into the tensors: only when it is what was written. */
static void load_model(fm_keep_t *keep, fm_client_t *client) {
  model_record_t model;
  keep->chunks = 0u;
  keep->crc32 = 0u;
  (void)memset(&model, 0, sizeof model);
  if (model_is_plans(keep, client, &model)) {
    if (chunks_back(keep, client, &model, false) && chunks_back(keep, client, &model, true)) {
      keep->chunks = model.chunks;
      keep->crc32 = model.crc32;
    } else {
      keep->errors++;
    }
  }
  keep->cursor = keep->chunks * keep->stride;
  keep->restored = keep->chunks;
  if (keep->chunks == model_chunks(client)) {
    client->model_version = model.version;
    client->model_crc32 = model.model_crc32;
  } else {
    mend_block(keep, client);
  }
}

/* A finished update into the working tensors. False: there is none that is whole. */
static bool load_update(fm_keep_t *keep, fm_client_t *client) {
  update_record_t update;
  bool loaded = record_read(keep, RECORD_UPDATE, &update) && (update.round == client->plan.round) &&
                (update.sealed_how == sealed_how(client)) && (keep->chunks == model_chunks(client));
  if (loaded) {
    const fm_client_config_t *config = client->config;
    const uint32_t elements = fm_tensors_elements(config->tensors, config->tensor_count, update.work.covered);
    const slot_t slot = {update_area(keep), 0u, 0u, 4u * elements, update.work.covered, false};
    uint32_t crc = 0u;
    loaded = (put_back(keep, client, &slot, false, &crc) == FM_OK) && (crc == update.image_crc32);
    keep->errors += loaded ? 0u : 1u;
    if (loaded) {
      (void)put_back(keep, client, &slot, true, &crc);
      if (!fm_job_has_base(client)) {
        client->model_version = 0u; /* the tensors are the update's now */
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

/* The job goes on where its newest durable step ended. */
static void load_state(fm_keep_t *keep, fm_client_t *client) {
  client->restored = true;
  if (load_update(keep, client)) {
    client->offered = true;
    client->job = (uint8_t)FM_STATE_OFFERING;
  } else if (keep->chunks == model_chunks(client)) {
    client->from_base = fm_job_has_base(client);
    client->job = (uint8_t)FM_STATE_CHECKING;
  } else {
    client->next_chunk = keep->chunks;
    client->job = (uint8_t)FM_STATE_DOWNLOADING;
  }
}

/* Of what the records' meaning depends on. */
static uint32_t identity(const fm_keep_t *keep, const fm_client_t *client) {
  const fm_client_config_t *config = client->config;
  uint32_t local = 0u; /* bits as in fm_work_t.covered */
  for (uint32_t t = 0u; t < config->tensor_count; t++) {
    local |= config->tensors[t].local ? ((uint32_t)1u << t) : 0u;
  }
  const uint32_t what[6] = {
      FM_VERSION,          (uint32_t)(sizeof(fm_plan_t) + sizeof(update_record_t)),        client->shared,
      keep->storage->size, fm_tensors_layout_crc32(config->tensors, config->tensor_count), local};
  return fm_crc32(0u, what, (uint32_t)sizeof what);
}

static void keep_load(void *self, fm_client_t *client) {
  fm_keep_t *keep = (fm_keep_t *)self;
  keep->identity = identity(keep, client);
  journal_mount(keep);
  if (record_read(keep, RECORD_JOB, &client->plan) && fm_job_plan_valid(client, &client->plan) &&
      fm_job_choose_encoding(client, &client->plan)) {
    const bool idle = record_read(keep, RECORD_IDLE, &client->done_round);
    model_record_t model;
    model_place(keep, client);
    if ((keep->stride != 0u) &&
        (!idle || (model_is_plans(keep, client, &model) && (model.chunks == model_chunks(client))))) {
      load_model(keep, client); /* a part of one is of use to its job alone */
    }
    if (!idle) {
      load_state(keep, client);
    }
  }
}

/* ---- starting ---- */

static bool sizes_valid(const fm_storage_t *storage) {
  const uint32_t program = storage->program_size;
  return (program >= 1u) && (program <= PIECE) && ((program & (program - 1u)) == 0u) && (storage->erase_size >= 16u) &&
         (storage->erase_size <= MOST_ERASE_SIZE) && ((storage->erase_size % program) == 0u);
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
  static const fm_keeper_api_t api = {keep_load, keep_save};
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
