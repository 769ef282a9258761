/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_client_internal.h"

#define PIECE 32u /* bytes on the stack at a time */
#define PROGRESS_EVERY_MS 5000u
#define IDLE_STEP_WAIT_MS 10u /* after a training step that had nothing to do */
#define MOST_CHECK_FAILURES 3u
#define ALL_TENSORS UINT32_MAX

uint32_t fm_job_model_chunk_size(const fm_client_t *client, uint32_t index) {
  return fm_chunk_size(client->shared, client->plan.model_chunk_elements, index);
}

/* ---- connecting again, and retries ---- */

static void download_from(fm_client_t *client, uint32_t chunk) {
  fm_client_enter(client, FM_STATE_DOWNLOADING);
  client->next_chunk = chunk;
  client->due |= FM_DUE_FETCH;
}

static void result_report(fm_client_t *client) {
  client->crc32 = client->plan.seed;
  fm_client_enter(client, FM_STATE_CONFIRMING);
  client->due |= FM_DUE_RESULT;
}

void fm_job_resume(fm_client_t *client, uint32_t open_round) {
  if (client->job == (uint8_t)FM_STATE_IDLE) {
    /* nothing to resume */
  } else if (open_round != client->plan.round) {
    client->done_round = client->plan.round;
    fm_client_drop_job(client); /* the round ended while the device was away */
  } else if (client->job == (uint8_t)FM_STATE_DOWNLOADING) {
    client->counters.chunks_resumed_in += client->next_chunk;
    client->due |= FM_DUE_FETCH;
  } else if (client->job < (uint8_t)FM_STATE_OFFERING) {
    /* checking, working and sealing need no link */
  } else if (client->plan.task == FM_TASK_FIT) {
    client->offered = true;
    fm_update_offer(client);
  } else {
    client->due |= FM_DUE_RESULT;
  }
}

void fm_job_retry(fm_client_t *client) {
  switch ((fm_state_t)client->job) {
  case FM_STATE_DOWNLOADING:
    if ((client->attempts % 2u) == 0u) { /* failed twice: try the other way, and keep the one that works */
      client->by_request = !client->by_request;
    }
    client->due |= FM_DUE_FETCH;
    break;
  case FM_STATE_OFFERING:
    client->offered = true;
    client->due |= FM_DUE_BEGIN;
    break;
  case FM_STATE_HOLDING: /* the commit was lost, or the server was replaced */
    client->offered = true;
    fm_update_offer(client);
    break;
  case FM_STATE_CONFIRMING:
    client->due |= (client->plan.task == FM_TASK_FIT) ? FM_DUE_END : FM_DUE_RESULT;
    break;
  default:
    break; /* no answer is expected */
  }
}

/* ---- messages of the server ---- */

/* Tell whether the plan was delivered twice or late: it is the current job's, the last one's, or older. */
static bool plan_stale(const fm_client_t *client, const fm_plan_t *plan) {
  const bool same = (plan->round == client->plan.round) && (plan->model_version == client->plan.model_version) &&
                    (plan->model_crc32 == client->plan.model_crc32) && (plan->task == client->plan.task) &&
                    (plan->seed == client->plan.seed);
  bool stale;
  if (client->job != (uint8_t)FM_STATE_IDLE) {
    stale = same || (plan->round < client->plan.round);
  } else {
    stale = same && (client->done_round == plan->round);
  }
  return stale;
}

static void work_begin(fm_client_t *client) {
  const fm_app_t *app = client->config->app;
  fm_status_t status = FM_OK;
  (void)memset(&client->work, 0, sizeof client->work);
#if FM_WITH_QUERY
  (void)memset(&client->answer, 0, sizeof client->answer);
#endif
  client->work.covered = ALL_TENSORS;
  client->progress_at_ms = client->now_ms + PROGRESS_EVERY_MS;
  fm_client_enter(client, FM_STATE_WORKING);
  if ((client->plan.task == FM_TASK_FIT) && !fm_plan_has_base(client)) {
    client->model_version = 0u; /* training in place overwrites the only copy */
  }
  if (app->work_begin != NULL) {
    status = app->work_begin(app->user, &client->plan, &client->work);
  }
  if (status != FM_OK) {
    fm_client_withdraw_job(client, FM_WITHDRAW_REASON_TRAINING_FAILED);
  }
}

static void plan_begin(fm_client_t *client) {
  const bool held =
      (client->model_version == client->plan.model_version) && (client->model_crc32 == client->plan.model_crc32);
  client->plan_at_ms = client->now_ms;
  client->check_failures = 0u;
  client->offered = false;
  client->hurry = false;
  client->receipted = false;
  client->from_base = held && fm_plan_has_base(client);
  client->by_request = false;
  client->restored = false;
  client->keep_due = 0u; /* the new job's record replaces what was due for the former one */
  if ((FM_WITH_QUERY != 0) && (client->plan.task == FM_TASK_QUERY)) {
    work_begin(client); /* needs no model; after a reset the server asks again */
  } else if (held) {
    fm_client_keep(client, FM_KEEP_JOB);
    fm_client_keep(client, FM_KEEP_MODEL);
    client->crc32 = 0u;
    fm_client_enter(client, FM_STATE_CHECKING);
  } else {
    fm_client_keep(client, FM_KEEP_JOB);
    download_from(client, 0u);
  }
}

void fm_job_on_plan(fm_client_t *client, const fm_plan_t *plan) {
  if (plan_stale(client, plan)) {
    fm_client_count_unexpected(client);
  } else {
    const fm_app_t *app = client->config->app;
    client->plan = *plan;
    if (!fm_plan_valid(client, plan) || !fm_plan_choose_encoding(client, plan)) {
      fm_client_withdraw_job(client, FM_WITHDRAW_REASON_APPLICATION);
    } else if ((app->may_work != NULL) && !app->may_work(app->user, plan)) {
      fm_client_withdraw_job(client, FM_WITHDRAW_REASON_BUSY);
    } else {
      plan_begin(client);
    }
  }
}

/* Continue a job from before a reset, if the application accepts it. Its time runs from now. */
void fm_job_restored(fm_client_t *client) {
  const fm_app_t *app = client->config->app;
  client->restored = false;
  client->plan_at_ms = client->now_ms;
  client->progress_at_ms = client->now_ms + PROGRESS_EVERY_MS;
  if ((client->job < (uint8_t)FM_STATE_OFFERING) && (app->may_work != NULL) &&
      !app->may_work(app->user, &client->plan)) {
    fm_client_withdraw_job(client, FM_WITHDRAW_REASON_BUSY);
  } else if (app->state_changed != NULL) {
    app->state_changed(app->user, client->job);
  } else {
    /* no callback */
  }
}

/* ---- checking the model ---- */

static void check_done(fm_client_t *client) {
  if (client->crc32 == client->plan.model_crc32) {
    client->model_version = client->plan.model_version;
    client->model_crc32 = client->crc32;
    work_begin(client);
  } else {
    client->counters.model_crc_errors++;
    client->model_version = 0u;
    client->from_base = false;
    client->check_failures++;
    if (client->check_failures < MOST_CHECK_FAILURES) {
      client->keep_due = 0u;
      download_from(client, 0u);
      fm_client_keep(client, FM_KEEP_JOB);
    } else {
      fm_client_withdraw_job(client, FM_WITHDRAW_REASON_APPLICATION);
    }
  }
}

static void checking_poll(fm_client_t *client) {
  const fm_client_config_t *config = client->config;
  const uint32_t total = 4u * client->shared;
  const uint32_t stop = fm_smaller(total, client->cursor + FM_POLL_BUDGET);
  fm_status_t status = FM_OK;
  while ((status == FM_OK) && (client->cursor < stop)) {
    uint8_t piece[PIECE];
    const uint32_t size = fm_smaller(PIECE, stop - client->cursor);
    status = fm_tensors_read(config->tensors, config->tensor_count, ALL_TENSORS, fm_plan_has_base(client),
                             client->cursor, piece, size);
    if ((status == FM_OK) && client->from_base) {
      status = fm_tensors_write(config->tensors, config->tensor_count, ALL_TENSORS, false, client->cursor, piece, size);
    }
    client->crc32 = fm_crc32(client->crc32, piece, size);
    client->cursor += size;
  }
  if (status != FM_OK) {
    fm_client_withdraw_job(client, FM_WITHDRAW_REASON_TRAINING_FAILED);
  } else if ((client->cursor == total) && (client->keep_due == 0u)) {
    check_done(client); /* training may overwrite the only copy in RAM, so the keeper must have saved it */
  } else {
    /* the next poll goes on */
  }
}

void fm_job_chunk_done(fm_client_t *client) {
  client->counters.chunks_in++;
  client->next_chunk++;
  fm_client_keep(client, FM_KEEP_MODEL);
  fm_client_progress(client);
  client->due &= ~FM_DUE_FETCH;
  if (fm_job_model_chunk_size(client, client->next_chunk) != 0u) {
    client->due |= FM_DUE_FETCH;
  } else {
    client->crc32 = 0u;
    fm_client_enter(client, FM_STATE_CHECKING);
  }
}

/* ---- working ---- */

static void work_done(fm_client_t *client) {
  if (client->plan.task != FM_TASK_FIT) {
    result_report(client);
  } else {
    client->elements = fm_tensors_elements(client->config->tensors, client->config->tensor_count, client->work.covered);
    if ((client->work.steps == 0u) || (client->elements == 0u)) {
      fm_client_withdraw_job(client, FM_WITHDRAW_REASON_NO_TIME);
    } else {
      fm_update_begin(client);
    }
  }
}

void fm_job_close(fm_client_t *client) {
  const bool fit = client->plan.task == FM_TASK_FIT;
  const bool begun = fit ? (client->work.steps != 0u) : (client->work.examples != 0u);
  if (client->job > (uint8_t)FM_STATE_WORKING) {
    /* the update is on its way */
  } else if (fit && !client->plan.partial_allowed) {
    /* only a complete update counts, so go on: it may still be in time */
  } else if ((client->job == (uint8_t)FM_STATE_WORKING) && begun) {
    work_done(client);
  } else {
    client->hurry = true; /* there is nothing to send before the first step, so do one */
  }
}

static fm_status_t query_step(fm_client_t *client) {
  fm_status_t status = FM_ERR_UNSUPPORTED;
#if FM_WITH_QUERY
  const fm_app_t *app = client->config->app;
  if (app->query_step != NULL) {
    status = app->query_step(app->user, &client->plan, &client->answer);
  }
  for (uint32_t i = 0u; (status == FM_DONE) && !fm_little_endian() && (i < client->plan.query_bins); i++) {
    fm_put_le32((uint8_t *)&client->answer.counts[i], client->answer.counts[i]);
  }
#else
  (void)client;
#endif
  return status;
}

static fm_status_t one_step(fm_client_t *client) {
  const fm_app_t *app = client->config->app;
  fm_status_t (*step)(void *user, fm_work_t *work) =
      (client->plan.task == FM_TASK_FIT) ? app->train_step : app->evaluate_step;
  fm_status_t status = FM_ERR_UNSUPPORTED;
  if ((FM_WITH_QUERY != 0) && (client->plan.task == FM_TASK_QUERY)) {
    status = query_step(client);
  } else if (step != NULL) {
    status = step(app->user, &client->work);
  } else {
    /* the application cannot answer this field */
  }
  return status;
}

static void after_step(fm_client_t *client, fm_status_t status, uint32_t *wait_ms) {
  if (status == FM_DONE) {
    work_done(client);
  } else if (status == FM_AGAIN) {
    *wait_ms = fm_smaller(*wait_ms, IDLE_STEP_WAIT_MS);
  } else if (status == FM_OK) {
    if (client->hurry) {
      fm_job_close(client);
    }
    *wait_ms = 0u;
  } else {
    fm_client_withdraw_job(client, FM_WITHDRAW_REASON_TRAINING_FAILED);
  }
}

static void working_poll(fm_client_t *client, uint32_t *wait_ms) {
  const uint32_t soft = client->plan.soft_deadline_ms;
  if ((soft != 0u) && ((client->now_ms - client->plan_at_ms) >= soft)) {
    fm_job_close(client); /* the closing notice may have been lost */
  }
  if (client->job == (uint8_t)FM_STATE_WORKING) {
    const fm_status_t status = one_step(client);
    if (client->job == (uint8_t)FM_STATE_WORKING) { /* the step itself may have finished early */
      after_step(client, status, wait_ms);
    }
  }
  if ((client->job == (uint8_t)FM_STATE_WORKING) && fm_client_is_past(client, client->progress_at_ms)) {
    client->progress_at_ms = client->now_ms + PROGRESS_EVERY_MS;
    client->due |= FM_DUE_PROGRESS;
  }
}

void fm_job_poll(fm_client_t *client, uint32_t *wait_ms) {
  const uint8_t before = client->job;
  switch ((fm_state_t)client->job) {
  case FM_STATE_CHECKING:
    checking_poll(client);
    *wait_ms = 0u;
    break;
  case FM_STATE_WORKING:
    working_poll(client, wait_ms);
    break;
  case FM_STATE_SEALING:
    fm_update_sealing(client);
    *wait_ms = 0u;
    break;
  case FM_STATE_OFFERING:
    fm_update_offering(client);
    break;
  case FM_STATE_UPLOADING:
    fm_update_uploading(client, wait_ms);
    break;
  default:
    break; /* these states wait for the server */
  }
  if (client->job != before) {
    *wait_ms = 0u; /* the new state has work of its own */
  }
}
