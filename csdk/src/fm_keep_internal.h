/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: how the keeper's files share its struct. Their order is in fm_client_internal.h. */
#ifndef FM_KEEP_INTERNAL_H
#define FM_KEEP_INTERNAL_H

#include "fedmote/fm_keep.h"
#include "fm_client_internal.h"

#define FM_KEEP_PIECE 32u /* bytes on the stack at a time; a multiple of every program size */
#define FM_KEEP_ALL_TENSORS UINT32_MAX

/* Types of records. Payloads: an fm_plan_t, the two structs below, and the number of the last finished round. */
enum { FM_KEEP_RECORD_JOB = 0, FM_KEEP_RECORD_MODEL, FM_KEEP_RECORD_UPDATE, FM_KEEP_RECORD_IDLE, FM_KEEP_RECORD_TYPES };

typedef struct {
  uint32_t version;
  uint32_t model_crc32;
  uint32_t chunk_elements;
  uint32_t chunks;
  uint32_t crc32; /* of their data */
} fm_keep_model_t;

typedef struct {
  uint32_t round;
  uint32_t crc32; /* the update's identity */
  uint32_t image_crc32;
  uint32_t sealed_how; /* see fm_keep_sealed_how() */
  fm_work_t work;
} fm_keep_update_t;

/* Which bytes of the tensors are at which place of an area. */
typedef struct {
  uint32_t area;
  uint32_t at;    /* offset within the area */
  uint32_t from;  /* offset within the image of the tensors in `mask` */
  uint32_t bytes; /* of the image */
  uint32_t mask;
  bool base; /* read the base copies; write them too */
} fm_keep_slot_t;

/* ---- fm_keep_save.c ---- */

/* Offsets of the areas of model and update in the storage. */
static inline uint32_t fm_keep_model_area(const fm_keep_t *keep) { return 2u * keep->half_size; }
static inline uint32_t fm_keep_update_area(const fm_keep_t *keep) { return fm_keep_model_area(keep) + keep->area_size; }
/* CRC-32 of the first `size` bytes of the model in the tensors. */
uint32_t fm_keep_tensors_crc32(const fm_client_t *client, uint32_t size);
/* Number of chunks of the plan's model. */
uint32_t fm_keep_model_chunks(const fm_client_t *client);
/* Work out where the plan's model lies; keep->stride is 0 when it does not fit. */
void fm_keep_place_model(fm_keep_t *keep, const fm_client_t *client);
/* Read the newest record of a model; tell whether it is the plan's model or its beginning. */
bool fm_keep_has_model(fm_keep_t *keep, const fm_client_t *client, fm_keep_model_t *model);
/* Return the CRC of the firmware's settings that, besides plan and tensors, determine an update's bytes. */
uint32_t fm_keep_sealed_how(const fm_client_t *client);
/* Save the next model chunk. FM_AGAIN: the budget is used up. */
fm_status_t fm_keep_save_chunk(fm_keep_t *keep, const fm_client_t *client, uint32_t *budget);
/* fm_keeper_api_t.save */
fm_status_t fm_keep_save(void *self, const fm_client_t *client, uint8_t what);

/* ---- fm_keep_journal.c ---- */

/* Round up to whole programs of the storage. */
uint32_t fm_keep_aligned(const fm_storage_t *storage, uint32_t size);
/* The storage's functions, with their errors counted. */
fm_status_t fm_keep_read(fm_keep_t *keep, uint32_t offset, void *out, uint32_t size);
fm_status_t fm_keep_program(fm_keep_t *keep, uint32_t offset, const uint8_t *bytes, uint32_t size);
fm_status_t fm_keep_erase(fm_keep_t *keep, uint32_t offset);
/* Tell whether the storage is blank from `offset` to `end`. */
bool fm_keep_blank(fm_keep_t *keep, uint32_t offset, uint32_t end);
/* Append a record of `type` (FM_KEEP_RECORD_*) with the payload of that type. */
fm_status_t fm_keep_append(fm_keep_t *keep, uint32_t type, const void *payload);
/* Read the newest record of a type. False: there is none. */
bool fm_keep_record(fm_keep_t *keep, uint32_t type, void *payload);
/* Find the half of the journal that is in use, and its newest records. */
void fm_keep_mount(fm_keep_t *keep);

#endif
