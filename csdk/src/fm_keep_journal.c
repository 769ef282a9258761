/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's journal: it records what is durable and what the two areas of bulk data hold.
 *
 * A half of the journal: a header (magic, generation, identity, CRC-32), then records (type, size, payload, CRC-32),
 * then blank bytes. Only the newest record of each type is valid. When a half is full, or a power cut damaged its end,
 * the newest records and the new one are written into the other half. Its header is written last; until then the old
 * half is in use. The half in use is the one whose valid header has the higher generation.
 */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_keep_internal.h"

#define COPY 16u
#define MAGIC 0x314B4D46u
#define HEADER_SIZE 16u
#define MOST_READS 3u
#define RECORD_EXTRA 8u /* bytes around a payload: 4 before, 4 after */

/* ---- the storage ---- */

uint32_t fm_keep_aligned(const fm_storage_t *storage, uint32_t size) {
  return (size + storage->program_size - 1u) & ~(storage->program_size - 1u);
}

static fm_status_t counted(fm_keep_t *keep, fm_status_t status) {
  if (status != FM_OK) {
    keep->errors++;
  }
  return (status == FM_OK) ? FM_OK : FM_ERR_STORAGE;
}

/* Read, and try again on failure: a brown-out may leave a chip busy, and data unreadable at the start is lost. */
fm_status_t fm_keep_read(fm_keep_t *keep, uint32_t offset, void *out, uint32_t size) {
  fm_status_t status = FM_AGAIN;
  for (uint32_t i = 0u; (i < MOST_READS) && (status != FM_OK); i++) {
    status = keep->storage->read(keep->storage->user, offset, (uint8_t *)out, size);
  }
  return counted(keep, status);
}

fm_status_t fm_keep_program(fm_keep_t *keep, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  const fm_status_t status = keep->storage->program(keep->storage->user, offset, bytes, size);
  return counted(keep, status);
}

fm_status_t fm_keep_erase(fm_keep_t *keep, uint32_t offset) {
  const fm_status_t status = keep->storage->erase(keep->storage->user, offset);
  return counted(keep, status);
}

bool fm_keep_blank(fm_keep_t *keep, uint32_t offset, uint32_t end) {
  bool blank = true;
  uint32_t at = offset;
  while (blank && (at < end)) {
    uint8_t piece[FM_KEEP_PIECE];
    const uint32_t size = fm_smaller(FM_KEEP_PIECE, end - at);
    blank = fm_keep_read(keep, at, piece, size) == FM_OK;
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
  uint8_t piece[FM_KEEP_PIECE];
} writer_t;

static void writer_flush(writer_t *writer) {
  const uint32_t size = fm_keep_aligned(writer->keep->storage, writer->fill);
  if ((writer->status == FM_OK) && (size != 0u)) {
    (void)memset(&writer->piece[writer->fill], 0xFF, (size_t)(size - writer->fill));
    writer->status = fm_keep_program(writer->keep, writer->offset, writer->piece, size);
  }
  writer->offset += size;
  writer->fill = 0u;
}

static void writer_put(writer_t *writer, const void *bytes, uint32_t size) {
  const uint8_t *from = (const uint8_t *)bytes;
  uint32_t done = 0u;
  writer->crc32 = fm_crc32(writer->crc32, bytes, size);
  while (done < size) {
    const uint32_t part = fm_smaller(size - done, FM_KEEP_PIECE - writer->fill);
    (void)memcpy(&writer->piece[writer->fill], &from[done], (size_t)part);
    writer->fill += part;
    done += part;
    if (writer->fill == FM_KEEP_PIECE) {
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

/* Append the CRC, then pad. */
static fm_status_t writer_finish(writer_t *writer) {
  const uint32_t crc = writer->crc32;
  writer_put(writer, &crc, (uint32_t)sizeof crc);
  writer_flush(writer);
  return writer->status;
}

static uint32_t record_seed(const fm_keep_t *keep) { return keep->identity ^ keep->generation; }

static uint32_t record_size(const fm_keep_t *keep, uint32_t payload) {
  return fm_keep_aligned(keep->storage, payload + RECORD_EXTRA);
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

/* Forget the records that a record of type `type` makes invalid. */
static void record_supersede(fm_keep_t *keep, uint32_t type) {
  if ((type == (uint32_t)FM_KEEP_RECORD_JOB) || (type == (uint32_t)FM_KEEP_RECORD_IDLE)) {
    keep->records[FM_KEEP_RECORD_UPDATE] = 0u;
  }
  if (type == (uint32_t)FM_KEEP_RECORD_JOB) {
    keep->records[FM_KEEP_RECORD_IDLE] = 0u;
  }
}

/* Sizes of the payloads, by type. */
static uint32_t payload_size(uint32_t type) {
  static const uint8_t sizes[FM_KEEP_RECORD_TYPES] = {(uint8_t)sizeof(fm_plan_t), (uint8_t)sizeof(fm_keep_model_t),
                                                      (uint8_t)sizeof(fm_keep_update_t), (uint8_t)sizeof(uint32_t)};
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
    status = fm_keep_read(keep, from + 4u + done, piece, part);
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
    status = fm_keep_erase(keep, half + at);
  }
  return status;
}

/* The half in use and its newest records. */
typedef struct {
  uint32_t half;
  uint32_t generation;
  uint32_t records[FM_KEEP_RECORD_TYPES];
} half_t;

/* Write the newest records of other types, then the given one of `type`, into an empty half. */
static fm_status_t half_fill(fm_keep_t *keep, const half_t *before, uint32_t type, const void *payload) {
  fm_status_t status = half_erase(keep, keep->half);
  keep->end = fm_keep_aligned(keep->storage, HEADER_SIZE);
  for (uint32_t t = 0u; (status == FM_OK) && (t < (uint32_t)FM_KEEP_RECORD_TYPES); t++) {
    if ((before->records[t] != 0u) && (t != type)) {
      status = record_copy(keep, before->half + before->records[t], t);
    }
  }
  return (status == FM_OK) ? record_write(keep, type, payload, payload_size(type)) : status;
}

static bool record_valid(fm_keep_t *keep, uint32_t at, uint32_t *type);

/* Check the records before they are copied: damaged data must not get a good CRC. A job must not return without the
 * record that ended it. */
static void records_check(fm_keep_t *keep) {
  for (uint32_t t = 0u; t < (uint32_t)FM_KEEP_RECORD_TYPES; t++) {
    uint32_t type = t;
    if ((keep->records[t] != 0u) && (!record_valid(keep, keep->records[t], &type) || (type != t))) {
      keep->records[t] = 0u;
      keep->records[FM_KEEP_RECORD_JOB] = (t == (uint32_t)FM_KEEP_RECORD_IDLE) ? 0u : keep->records[FM_KEEP_RECORD_JOB];
    }
  }
}

/* Write the newest records and the new one into the other half. */
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

fm_status_t fm_keep_append(fm_keep_t *keep, uint32_t type, const void *payload) {
  fm_status_t status;
  record_supersede(keep, type);
  if (type == (uint32_t)FM_KEEP_RECORD_JOB) {
    keep->records[FM_KEEP_RECORD_JOB] = 0u; /* the old job must not return without the record that ended it */
  }
  if ((keep->generation == 0u) || ((keep->end + record_size(keep, payload_size(type))) > keep->half_size)) {
    status = journal_turn(keep, type, payload);
  } else {
    status = record_write(keep, type, payload, payload_size(type));
    if (status != FM_OK) {
      keep->records[type] = 0u;
      keep->end = keep->half_size; /* what is programmed there is unknown, so append no more */
    }
  }
  return status;
}

/* ---- reading the journal ---- */

/* Read the payload of the newest record of `type`. False: there is none. */
bool fm_keep_record(fm_keep_t *keep, uint32_t type, void *payload) {
  return (keep->records[type] != 0u) &&
         (fm_keep_read(keep, keep->half + keep->records[type] + 4u, payload, payload_size(type)) == FM_OK);
}

/* Tell whether the record at `at` of the storage, with a payload of `size` bytes, has a correct CRC. */
static bool record_intact(fm_keep_t *keep, uint32_t at, uint32_t size) {
  uint32_t crc = record_seed(keep);
  uint32_t stored = ~crc;
  uint32_t done = 0u;
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (done < (4u + size))) {
    uint8_t piece[COPY];
    const uint32_t part = fm_smaller(COPY, 4u + size - done);
    status = fm_keep_read(keep, at + done, piece, part);
    crc = fm_crc32(crc, piece, part);
    done += part;
  }
  if (status == FM_OK) {
    status = fm_keep_read(keep, at + done, &stored, (uint32_t)sizeof stored);
  }
  return (status == FM_OK) && (stored == crc);
}

/* Tell whether there is a complete record at `at` of the half in use; set *type. */
static bool record_valid(fm_keep_t *keep, uint32_t at, uint32_t *type) {
  uint8_t head[4];
  bool valid = ((at + RECORD_EXTRA) <= keep->half_size) && (fm_keep_read(keep, keep->half + at, head, 4u) == FM_OK);
  if (valid) {
    *type = (uint32_t)head[0] - 1u;
    valid = (head[0] >= 1u) && (*type < (uint32_t)FM_KEEP_RECORD_TYPES);
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
  uint32_t at = fm_keep_aligned(keep->storage, HEADER_SIZE);
  uint32_t type = 0u;
  while (record_valid(keep, at, &type)) {
    keep->records[type] = at;
    record_supersede(keep, type);
    at += record_size(keep, payload_size(type));
  }
  keep->end = fm_keep_blank(keep, keep->half + at, keep->half + keep->half_size) ? at : keep->half_size;
}

/* Return the generation in a half's header; 0: there is no valid header of this firmware. */
static uint32_t half_generation(fm_keep_t *keep, uint32_t half) {
  uint32_t head[4] = {0u, 0u, 0u, 0u};
  uint32_t generation = 0u;
  if ((fm_keep_read(keep, half, head, HEADER_SIZE) == FM_OK) && (head[0] == MAGIC) && (head[2] == keep->identity) &&
      (fm_crc32(0u, head, 12u) == head[3])) {
    generation = head[1];
  }
  return generation;
}

void fm_keep_mount(fm_keep_t *keep) {
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
