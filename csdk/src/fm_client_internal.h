/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: how the client's files share its struct.
 *
 * A file calls only files below it. tests/csdk/test_layers.py reads this list and holds the code to it.
 *
 * fm_keep.c           the keeper: start, and restore a job; called through fm_keeper_api_t
 * fm_keep_save.c      the keeper: save model chunks and updates
 * fm_keep_journal.c   the keeper: the journal of what is durable
 * fm_client.c         public entry: init, poll; the session (Hello until Welcome)
 * fm_client_rx.c      the sink: assemble and dispatch what arrives
 * fm_client_job.c     the job: plan, download, check, work
 * fm_client_update.c  the update: seal, offer, upload, hold until the commit
 * fm_client_tx.c      send what is due
 * fm_client_plan.c    what a plan may ask, encodings, number and size of chunks
 * fm_client_state.c   enter a state, retry timer, what is to be made durable
 * fm_encoding.c       a tensor's elements as the bytes of a chunk
 * fm_tensor.c         read and write the tensors as one vector
 * fm_codec.c          messages to bytes and back
 * fm_crc32.c          CRC-32
 */
#ifndef FM_CLIENT_INTERNAL_H
#define FM_CLIENT_INTERNAL_H

#include "fedmote/fm_client.h"
#include "fm_encoding.h"
#include "fm_tensor_io.h"

/* fm_client_t.session */
enum { FM_SESSION_NONE = 0, FM_SESSION_GREETING, FM_SESSION_READY, FM_SESSION_REFUSED };

/* fm_client_t.due: what to send, lowest bit first. */
#define FM_DUE_HELLO 0x01u
#define FM_DUE_WITHDRAW 0x02u
#define FM_DUE_STATE 0x04u
#define FM_DUE_BEGIN 0x08u
#define FM_DUE_END 0x10u
#define FM_DUE_RESULT 0x20u /* Evaluation or Answer */
#define FM_DUE_FETCH 0x40u
#define FM_DUE_PROGRESS 0x80u

/* A mask of the wire: the bit of one encoding or kind. */
#define FM_BIT(value) ((uint32_t)1u << (uint32_t)(value))

/* Coverage needs at most every other tensor as a range of its own. */
#define FM_RANGES_SIZE (8u * ((FM_MAX_TENSORS + 1u) / 2u))

typedef fm_status_t (*fm_read_t)(void *user, uint32_t offset, uint8_t *out, uint32_t size);

/* ---- fm_client_rx.c ---- */

/* The sink for what the link receives. */
fm_sink_t fm_client_sink(fm_client_t *client);

/* ---- fm_client_job.c ---- */

/* Act on a plan. */
void fm_job_on_plan(fm_client_t *client, const fm_plan_t *plan);
/* Act on the closing notice, or on a deadline: send the steps done so far. */
void fm_job_close(fm_client_t *client);
/* Welcome arrived: resume the transfer. open_round: the server's open round. */
void fm_job_resume(fm_client_t *client, uint32_t open_round);
/* The keeper restored the job; called in the first poll after a reset. */
void fm_job_restored(fm_client_t *client);
/* Number of elements in model chunk `index` of the present plan; 0 beyond the end. */
uint32_t fm_job_model_chunk_size(const fm_client_t *client, uint32_t index);
/* The next model chunk is complete. */
void fm_job_chunk_done(fm_client_t *client);
/* Do one bounded piece of the job. Lower *wait_ms to when the next one is due. */
void fm_job_poll(fm_client_t *client, uint32_t *wait_ms);
/* The retry timer ran out: make the job's messages due again. */
void fm_job_retry(fm_client_t *client);

/* ---- fm_client_update.c ---- */

/* Training is over and client->elements are covered: begin to seal the update. */
void fm_update_begin(fm_client_t *client);
/* Offer the update. */
void fm_update_offer(fm_client_t *client);
/* Do one bounded piece of the work in FM_STATE_SEALING, _OFFERING and _UPLOADING. */
void fm_update_sealing(fm_client_t *client);
void fm_update_offering(fm_client_t *client);
void fm_update_uploading(fm_client_t *client, uint32_t *wait_ms);
/* Act on the server's answers about the update. */
void fm_update_on_status(fm_client_t *client, const fm_update_status_t *status);
void fm_update_on_receipt(fm_client_t *client, const fm_receipt_t *receipt);
void fm_update_on_commit(fm_client_t *client, const fm_commit_t *commit);

/* ---- fm_client_tx.c ---- */

/* Return the part of `due` that may be sent: an update that is not durable yet may not be offered. */
uint32_t fm_client_ready(const fm_client_t *client);
/* Send the most urgent message that is due. One that needs an answer arms the retry timer. */
void fm_client_send_due(fm_client_t *client);
/* Send chunk `sent_chunk` of the update; the link gets its data from `read`. FM_AGAIN: the link is busy. */
fm_status_t fm_client_send_chunk(fm_client_t *client, uint32_t size, fm_read_t read);

/* ---- fm_client_plan.c ---- */

/* Number of chunks of `elements`. */
uint32_t fm_chunk_count(uint32_t elements, uint32_t chunk_elements);
/* Number of elements in chunk `index` of `elements`; 0 beyond the end. */
uint32_t fm_chunk_size(uint32_t elements, uint32_t chunk_elements, uint32_t index);
/* Tell whether every shared tensor has a base copy. */
bool fm_plan_has_base(const fm_client_t *client);
/* Return the mask of the kinds that this device can send. */
uint8_t fm_plan_kinds(const fm_client_t *client);
/* Tell whether this device can do what the plan asks. */
bool fm_plan_valid(const fm_client_t *client, const fm_plan_t *plan);
/* Choose encoding and kind among those that both sides can. False: there is none. */
bool fm_plan_choose_encoding(fm_client_t *client, const fm_plan_t *plan);

/* ---- fm_client_state.c ---- */

/* Enter a state of the job: clear what the former state had made due, and call the application. */
void fm_client_enter(fm_client_t *client, fm_state_t state);
/* Forget the job. */
void fm_client_drop_job(fm_client_t *client);
/* Withdraw from the job and tell the server why. */
void fm_client_withdraw_job(fm_client_t *client, uint8_t reason);
/* The job made progress: its next retry waits the shortest time again. */
void fm_client_progress(fm_client_t *client);
/* Arm the retry timer; the wait doubles with each of `attempts`. */
void fm_client_arm_retry(fm_client_t *client);
/* Disarm the retry timer; its next wait is the shortest again. */
static inline void fm_client_reset_backoff(fm_client_t *client) {
  client->attempts = 0u;
  client->waiting = false;
}
/* Tell whether `at_ms` is now or past. */
bool fm_client_is_past(const fm_client_t *client, uint32_t at_ms);
/* Lower *wait_ms to the time left until `at_ms`. */
void fm_client_wait_until(const fm_client_t *client, uint32_t at_ms, uint32_t *wait_ms);
/* Count a message that is valid but not expected now. */
void fm_client_count_unexpected(fm_client_t *client);
/* Have the keeper, if there is one, make something durable (FM_KEEP_*). */
void fm_client_keep(fm_client_t *client, uint8_t what);

#endif
