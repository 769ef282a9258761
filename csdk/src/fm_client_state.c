/* SPDX-License-Identifier: Apache-2.0 */
/* Enter a state, run the retry timer, note what is to be made durable. Calls no other file of the client. */
#include "fm_client_internal.h"

#define DEFAULT_RETRY_MIN_MS 1000u
#define DEFAULT_RETRY_MAX_MS 60000u
#define JOB_DUE (FM_DUE_BEGIN | FM_DUE_END | FM_DUE_RESULT | FM_DUE_FETCH | FM_DUE_PROGRESS)

void fm_client_arm_retry(fm_client_t *client) {
  const uint32_t least = (client->config->retry_min_ms != 0u) ? client->config->retry_min_ms : DEFAULT_RETRY_MIN_MS;
  const uint32_t most = (client->config->retry_max_ms != 0u) ? client->config->retry_max_ms : DEFAULT_RETRY_MAX_MS;
  uint32_t wait = least;
  for (uint8_t i = 0u; (i < client->attempts) && (wait < most); i++) {
    wait = (wait < 0x80000000u) ? (2u * wait) : wait;
  }
  wait = (wait > most) ? most : wait;
  client->retry_at_ms = client->now_ms + wait - (fm_xorshift(&client->random) % ((wait / 2u) + 1u));
  client->waiting = true;
}

bool fm_client_is_past(const fm_client_t *client, uint32_t at_ms) {
  return (client->now_ms - at_ms) < 0x80000000u; /* the clock may wrap */
}

void fm_client_wait_until(const fm_client_t *client, uint32_t at_ms, uint32_t *wait_ms) {
  *wait_ms = fm_client_is_past(client, at_ms) ? 0u : fm_smaller(*wait_ms, at_ms - client->now_ms);
}

void fm_client_count_unexpected(fm_client_t *client) { client->counters.unexpected++; }

void fm_client_keep(fm_client_t *client, uint8_t what) {
  if (client->config->keeper.api != NULL) {
    client->keep_due |= what;
  }
}

/* Before Welcome, Hello uses the retry timer while the job goes on: leave it alone. */
void fm_client_progress(fm_client_t *client) {
  if (client->session == (uint8_t)FM_SESSION_READY) {
    fm_client_reset_backoff(client);
  }
}

void fm_client_enter(fm_client_t *client, fm_state_t state) {
  client->job = (uint8_t)state;
  client->due &= ~JOB_DUE;
  client->cursor = 0u;
  fm_client_progress(client);
  if (client->config->app->state_changed != NULL) {
    client->config->app->state_changed(client->config->app->user, client->job);
  }
}

void fm_client_drop_job(fm_client_t *client) {
  client->keep_due = 0u; /* none of it must be kept */
  fm_client_keep(client, FM_KEEP_IDLE);
  fm_client_enter(client, FM_STATE_IDLE);
}

void fm_client_withdraw_job(fm_client_t *client, uint8_t reason) {
  client->withdraw_round = client->plan.round;
  client->withdraw_reason = reason;
  client->due |= FM_DUE_WITHDRAW;
  client->counters.withdrawals++;
  fm_client_drop_job(client);
}
