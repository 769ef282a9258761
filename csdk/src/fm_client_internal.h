/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: how the client's files share its struct.
 *
 * fm_client.c        init, poll, the session (Hello until Welcome)
 * fm_client_tx.c     sending what is due
 * fm_client_rx.c     the sink: assembling and dispatching what arrives
 * fm_client_job.c    the job: plan, download, check, work
 * fm_client_update.c what comes of a fit: seal, offer, upload, hold until the commit
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

/* Arm the retry timer with the back-off that `attempts` asks for. */
void fm_client_arm(fm_client_t *client);
/* Progress was made: the next wait is the shortest again. */
void fm_client_calm(fm_client_t *client);
/* Count a message that is valid, but means nothing now. */
void fm_client_unexpected(fm_client_t *client);
/* Has `at_ms` come? */
bool fm_client_is_past(const fm_client_t *client, uint32_t at_ms);
/* Lower *wait_ms to what is left until `at_ms`. */
void fm_client_wait_until(const fm_client_t *client, uint32_t at_ms, uint32_t *wait_ms);
typedef fm_status_t (*fm_read_t)(void *user, uint32_t offset, uint8_t *out, uint32_t size);

/* What of `due` may be sent: not the offer of an update that is not durable yet. */
uint32_t fm_client_ready(const fm_client_t *client);
/* Send the most urgent message of those due. Those that want an answer arm the retry timer. */
void fm_client_send_due(fm_client_t *client);
/* Send chunk `sent_chunk` of the update, whose data the link gets from `read`. FM_AGAIN: the link is busy. */
fm_status_t fm_client_send_chunk(fm_client_t *client, uint32_t size, fm_read_t read);

fm_sink_t fm_client_sink(fm_client_t *client);

uint32_t fm_chunk_count(uint32_t elements, uint32_t chunk_elements);
/* Elements of chunk `index` when `elements` are cut into chunks of `chunk_elements`; 0 beyond the end. */
uint32_t fm_chunk_size(uint32_t elements, uint32_t chunk_elements, uint32_t index);

/* Have the keeper, if there is one, make this durable too. */
void fm_client_keep(fm_client_t *client, uint8_t what);

/* Can this device do what the plan asks? */
bool fm_job_plan_valid(const fm_client_t *client, const fm_plan_t *plan);
/* In the first poll after a reset: the job was put back. */
void fm_job_restored(fm_client_t *client);
/* Choose how to send among what both sides can. False: nothing in common. */
bool fm_job_choose_encoding(fm_client_t *client, const fm_plan_t *plan);
/* Has every shared tensor a base copy? */
bool fm_job_has_base(const fm_client_t *client);
void fm_job_enter(fm_client_t *client, fm_state_t state);
/* Forget the job. */
void fm_job_drop(fm_client_t *client);
void fm_job_withdraw(fm_client_t *client, uint8_t reason);
/* The session is ready again: go on where the transfer broke. */
void fm_job_resume(fm_client_t *client, uint32_t open_round);
void fm_job_on_plan(fm_client_t *client, const fm_plan_t *plan);
void fm_job_close(fm_client_t *client);
/* The next model chunk came whole. */
void fm_job_chunk_done(fm_client_t *client);
/* Elements of model chunk `index` of the present plan. */
uint32_t fm_job_model_chunk_size(const fm_client_t *client, uint32_t index);
/* One bounded piece of the job. */
void fm_job_poll(fm_client_t *client, uint32_t *wait_ms);
/* Make the job's due messages again after the retry timer ran out. */
void fm_job_retry(fm_client_t *client);
uint8_t fm_job_kinds(const fm_client_t *client);

/* Training is over: client->elements are covered. Start to seal them. */
void fm_update_begin(fm_client_t *client);
void fm_update_offer(fm_client_t *client);
void fm_update_sealing(fm_client_t *client);
void fm_update_offering(fm_client_t *client);
void fm_update_uploading(fm_client_t *client, uint32_t *wait_ms);
void fm_update_on_status(fm_client_t *client, const fm_update_status_t *status);
void fm_update_on_receipt(fm_client_t *client, const fm_receipt_t *receipt);
void fm_update_on_commit(fm_client_t *client, const fm_commit_t *commit);

#endif
