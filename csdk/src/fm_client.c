/* SPDX-License-Identifier: Apache-2.0 */
#include "fedmote/fm_client.h"

#include <string.h>

#include "fm_client_internal.h"

#define LONGEST_WAIT_MS 60000u
#define KEPT_DUE (FM_DUE_WITHDRAW | FM_DUE_STATE) /* survives a lost connection */

/* ---- starting ---- */

static bool tensor_valid(const fm_tensor_t *tensor) {
  bool valid = (tensor->name != NULL) && (tensor->count != 0u) && (tensor->count < 0x20000000u);
  if (valid) {
    const size_t length = strlen(tensor->name);
    valid = (length >= 1u) && (length <= (size_t)FM_MAX_TENSOR_NAME);
  }
  if (valid && (tensor->data == NULL)) {
    valid = (tensor->io != NULL) && (tensor->io->read != NULL) && (tensor->io->write != NULL);
  }
  return valid;
}

static bool tensors_valid(const fm_client_config_t *config) {
  bool valid = (config->tensors != NULL) && (config->tensor_count >= 1u) && (config->tensor_count <= FM_MAX_TENSORS);
  for (uint32_t t = 0u; valid && (t < config->tensor_count); t++) {
    valid = tensor_valid(&config->tensors[t]);
    for (uint32_t other = 0u; valid && (other < t); other++) {
      valid = strcmp(config->tensors[t].name, config->tensors[other].name) != 0;
    }
  }
  return valid;
}

static bool link_valid(const fm_link_t *link) {
  const fm_link_api_t *api = link->api;
  return (api != NULL) && (api->poll != NULL) && (api->connection != NULL) && (api->send != NULL) &&
         (api->sending != NULL) && (api->abort != NULL);
}

static bool connections_valid(const fm_client_config_t *config) {
  const fm_keeper_api_t *keeper = config->keeper.api;
  return link_valid(&config->link) && ((keeper == NULL) || ((keeper->load != NULL) && (keeper->save != NULL)));
}

static bool id_valid(const char *id) {
  bool valid = (id != NULL) && (id[0] != '\0');
  uint32_t length = 0u;
  while (valid && (id[length] != '\0')) {
    length++;
    valid = length <= FM_MAX_DEVICE_ID;
  }
  return valid;
}

static fm_status_t config_check(const fm_client_config_t *config) {
  fm_status_t status = FM_OK;
  if (!id_valid(config->device_id) || (config->app == NULL) || !tensors_valid(config) || !connections_valid(config)) {
    status = FM_ERR_ARGUMENT;
  } else if ((config->rx_buffer == NULL) || (config->tx_buffer == NULL)) {
    status = FM_ERR_ARGUMENT;
  } else if ((config->rx_buffer_size < FM_MIN_BUFFER) || (config->tx_buffer_size < FM_MIN_BUFFER)) {
    status = FM_ERR_BUFFER;
  } else if (fm_tensors_shared(config->tensors, config->tensor_count) == 0u) {
    status = FM_ERR_ARGUMENT;
  } else {
    /* complete */
  }
  return status;
}

fm_status_t fm_client_init(fm_client_t *client, const fm_client_config_t *config) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((client != NULL) && (config != NULL)) {
    status = config_check(config);
  }
  if (status == FM_OK) {
    (void)memset(client, 0, sizeof *client);
    client->config = config;
    client->random = (config->seed != 0u) ? config->seed : 0x6665646Du;
    client->battery = 255u;
    client->job = (uint8_t)FM_STATE_IDLE;
    client->shared = fm_tensors_shared(config->tensors, config->tensor_count);
    if (config->keeper.api != NULL) {
      config->keeper.api->load(config->keeper.self, client);
    }
  }
  return status;
}

void fm_client_restore_model(fm_client_t *client, uint32_t version, uint32_t crc32) {
  client->model_version = version;
  client->model_crc32 = crc32;
}

/* ---- the session ---- */

/* React to a link that came up, went down or reconnected since the last poll. */
static void session_follow_link(fm_client_t *client) {
  const fm_link_t *link = &client->config->link;
  const uint32_t connection = link->api->connection(link->self);
  if (connection != client->connection) {
    client->connection = connection;
    client->due &= KEPT_DUE;
    fm_client_reset_backoff(client);
    if (link->api->sending(link->self)) {
      client->due |= client->sent & KEPT_DUE; /* it may not have arrived */
      link->api->abort(link->self);
    }
    if (connection != 0u) {
      client->counters.connections++;
      client->session = FM_SESSION_GREETING;
      client->boot = fm_xorshift(&client->random); /* a Welcome for an earlier connection will not match */
      client->due |= FM_DUE_HELLO;
    } else {
      client->session = FM_SESSION_NONE;
    }
  }
}

static void session_retry(fm_client_t *client) {
  client->waiting = false;
  client->counters.timeouts++;
  if (client->attempts < UINT8_MAX) {
    client->attempts++;
  }
  if (client->session == FM_SESSION_GREETING) {
    client->due |= FM_DUE_HELLO;
  } else if (client->session == FM_SESSION_READY) {
    fm_job_retry(client);
  } else {
    /* refused or offline: no answer is expected */
  }
}

/* ---- poll ---- */

static bool may_send(const fm_client_t *client) {
  return (client->session == FM_SESSION_READY) ||
         ((client->session == FM_SESSION_GREETING) && ((client->due & FM_DUE_HELLO) != 0u));
}

static void send_next(fm_client_t *client, uint32_t *wait_ms) {
  const fm_link_t *link = &client->config->link;
  if ((fm_client_ready(client) != 0u) && may_send(client)) {
    fm_client_send_due(client);
    if (!link->api->sending(link->self)) {
      *wait_ms = 0u; /* there may be more to send */
    }
  }
}

/* Poll the link again while it is sending, so that the bytes go out now. The link itself sets the wait. */
static fm_status_t flush_link(fm_client_t *client, const fm_sink_t *sink, uint32_t *wait_ms, fm_status_t so_far) {
  const fm_link_t *link = &client->config->link;
  fm_status_t status = so_far;
  if (link->api->sending(link->self)) {
    const uint32_t heard = client->counters.messages_in;
    const fm_status_t again = link->api->poll(link->self, client->now_ms, sink, wait_ms);
    status = (status == FM_OK) ? again : status;
    if (client->counters.messages_in != heard) {
      *wait_ms = 0u; /* there may be something to do about it */
    }
  }
  return status;
}

/* Have the keeper save one piece, the most urgent first. */
static void keep_poll(fm_client_t *client, uint32_t *wait_ms) {
  const fm_keeper_t *keeper = &client->config->keeper;
  const uint8_t rest = client->keep_due & (uint8_t)(client->keep_due - 1u);
  if (client->keep_due != 0u) {
    if (keeper->api->save(keeper->self, client, (uint8_t)(client->keep_due ^ rest)) != FM_AGAIN) {
      client->keep_due = rest;
    }
    *wait_ms = 0u;
  }
}

fm_status_t fm_client_poll(fm_client_t *client, uint32_t now_ms, uint32_t *wait_ms) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((client != NULL) && (client->config != NULL) && (wait_ms != NULL)) {
    const fm_link_t *link = &client->config->link;
    const fm_sink_t sink = fm_client_sink(client);
    client->now_ms = now_ms;
    if (client->restored) {
      fm_job_restored(client);
    }
    *wait_ms = LONGEST_WAIT_MS;
    status = link->api->poll(link->self, now_ms, &sink, wait_ms);
    session_follow_link(client);
    if (client->waiting && fm_client_is_past(client, client->retry_at_ms)) {
      session_retry(client);
    }
    keep_poll(client, wait_ms);
    fm_job_poll(client, wait_ms);
    send_next(client, wait_ms);
    status = flush_link(client, &sink, wait_ms, status);
    if (client->waiting) {
      fm_client_wait_until(client, client->retry_at_ms, wait_ms);
    }
    if (client->session == FM_SESSION_REFUSED) {
      status = FM_ERR_REFUSED;
    }
  }
  return status;
}

/* ---- the application's functions ---- */

fm_state_t fm_client_state(const fm_client_t *client) {
  fm_state_t state = (fm_state_t)client->job;
  if (client->session == FM_SESSION_REFUSED) {
    state = FM_STATE_REFUSED;
  } else if (state != FM_STATE_IDLE) {
    /* work goes on with or without a session */
  } else if (client->session == FM_SESSION_NONE) {
    state = FM_STATE_OFFLINE;
  } else if (client->session == FM_SESSION_GREETING) {
    state = FM_STATE_GREETING;
  } else {
    /* idle */
  }
  return state;
}

uint32_t fm_client_model_version(const fm_client_t *client) { return client->model_version; }

bool fm_client_online(const fm_client_t *client) { return client->session == FM_SESSION_READY; }

void fm_client_withdraw(fm_client_t *client, uint8_t reason) {
  if (client->job != (uint8_t)FM_STATE_IDLE) {
    fm_client_withdraw_job(client, reason);
  }
}

void fm_client_finish_early(fm_client_t *client) { fm_job_close(client); }

void fm_client_set_device_state(fm_client_t *client, uint8_t battery, uint8_t flags) {
  if ((client->battery != battery) || (client->flags != flags)) {
    client->battery = battery;
    client->flags = flags;
    client->due |= FM_DUE_STATE;
  }
}
