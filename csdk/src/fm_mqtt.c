/* SPDX-License-Identifier: Apache-2.0 */
/* The MQTT link: connect, keep alive, reconnect. fm_mqtt_tx.c writes packets, fm_mqtt_rx.c reads them. Sections named
 * are those of the MQTT 3.1.1 specification. */
#include "fedmote/fm_mqtt.h"

#include <string.h>

#include "fm_bits.h"
#include "fm_mqtt_internal.h"

#define HANDSHAKE_MS 10000u
#define OPENING_POLL_MS 10u
#define BLOCKED_POLL_MS 10u
#define ROUNDS_A_POLL 8u
#define LONGEST_FEDERATION 32u
#define LONGEST_HEAD 0xFFFFu
#define LONGEST_BODY 0x0FF00000u /* a remaining length ends at 0x0FFFFFFF */

static void lower(uint32_t *wait_ms, uint32_t to) {
  if (to < *wait_ms) {
    *wait_ms = to;
  }
}

/* ---- the phases ---- */

static void open_stream(fm_mqtt_t *mqtt) {
  const fm_status_t status = mqtt->config->stream.api->open(mqtt->config->stream.self);
  if (status == FM_OK) {
    mqtt->last_in_ms = mqtt->now_ms;
    mqtt->last_out_ms = mqtt->now_ms;
    mqtt->due |= FM_MQTT_DUE_CONNECT;
    fm_mqtt_enter(mqtt, FM_PHASE_CONNECTING);
  } else if (status != FM_AGAIN) {
    fm_mqtt_break(mqtt);
  } else {
    /* in progress */
  }
}

/* Return what is left of `limit` milliseconds since `then_ms`; 0: it is over. */
static uint32_t left(const fm_mqtt_t *mqtt, uint32_t then_ms, uint32_t limit) {
  const uint32_t gone = mqtt->now_ms - then_ms;
  return (gone < limit) ? (limit - gone) : 0u;
}

/* Close a silent connection, ping an idle one. Return the time until the next such action. */
static uint32_t keep_alive(fm_mqtt_t *mqtt) {
  const uint32_t quarter = 250u * (uint32_t)mqtt->config->keep_alive_s;
  const uint32_t silence = left(mqtt, mqtt->last_in_ms, 6u * quarter);
  uint32_t ping = left(mqtt, mqtt->last_out_ms, 3u * quarter);
  lower(&ping, left(mqtt, mqtt->last_in_ms, 3u * quarter));
  if (silence == 0u) {
    mqtt->counters.silent++;
    fm_mqtt_break(mqtt);
  } else if (ping == 0u) {
    ping = left(mqtt, mqtt->phase_at_ms, quarter); /* one ping a quarter is enough to wait for */
    if (ping == 0u) {
      mqtt->phase_at_ms = mqtt->now_ms;
      mqtt->due |= FM_MQTT_DUE_PING;
    }
  } else {
    /* all is well */
  }
  lower(&ping, silence);
  return ping;
}

/* Do what is due by time, in every phase. */
static void watch(fm_mqtt_t *mqtt, uint32_t *wait_ms) {
  if (mqtt->phase == FM_PHASE_UP) {
    lower(wait_ms, keep_alive(mqtt));
  } else if (mqtt->phase != FM_PHASE_CLOSED) {
    const uint32_t rest = left(mqtt, mqtt->phase_at_ms, HANDSHAKE_MS);
    lower(wait_ms, rest);
    if (rest == 0u) {
      fm_mqtt_break(mqtt);
    } else if (mqtt->phase == FM_PHASE_OPENING) {
      lower(wait_ms, OPENING_POLL_MS);
    } else {
      /* waiting for CONNACK or SUBACK */
    }
  } else {
    /* closed */
  }
  if (mqtt->phase == FM_PHASE_CLOSED) {
    lower(wait_ms, left(mqtt, mqtt->phase_at_ms, mqtt->wait_ms));
  } else if (mqtt->tx_fill != mqtt->tx_sent) {
    lower(wait_ms, BLOCKED_POLL_MS); /* or call when the stream can be written */
  } else {
    /* nothing more to send */
  }
}

static void exchange(fm_mqtt_t *mqtt, uint32_t *wait_ms) {
  for (uint32_t i = 0u; (i < ROUNDS_A_POLL) && (mqtt->phase >= FM_PHASE_CONNECTING); i++) {
    const bool sent = fm_mqtt_transmit(mqtt);
    const bool got = (mqtt->phase >= FM_PHASE_CONNECTING) && fm_mqtt_receive(mqtt);
    if (!sent && !got) {
      break;
    }
    if (i == (ROUNDS_A_POLL - 1u)) {
      lower(wait_ms, 0u);
    }
  }
}

static fm_status_t mqtt_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  mqtt->now_ms = now_ms;
  mqtt->sink = sink;
  if (mqtt->phase == FM_PHASE_CLOSED) {
    fm_mqtt_forget_incoming(mqtt);
    if (left(mqtt, mqtt->phase_at_ms, mqtt->wait_ms) == 0u) {
      fm_mqtt_enter(mqtt, FM_PHASE_OPENING);
    }
  }
  if (mqtt->phase == FM_PHASE_OPENING) {
    open_stream(mqtt);
  }
  exchange(mqtt, wait_ms);
  watch(mqtt, wait_ms);
  mqtt->sink = NULL;
  return mqtt->refused ? FM_ERR_REFUSED : FM_OK;
}

/* ---- the rest of the link ---- */

static uint32_t mqtt_connection(const void *self) {
  const fm_mqtt_t *mqtt = (const fm_mqtt_t *)self;
  return (mqtt->phase == FM_PHASE_UP) ? mqtt->connection : 0u;
}

static fm_status_t mqtt_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  fm_status_t status = FM_AGAIN;
  if ((message->head_size > LONGEST_HEAD) || (message->body_size > LONGEST_BODY)) {
    status = FM_ERR_BUFFER;
  } else if ((mqtt->phase == FM_PHASE_UP) && (mqtt->out_state == FM_OUT_NONE)) {
    mqtt->out = *message;
    mqtt->out_offset = 0u;
    mqtt->out_again = false;
    mqtt->out_reliable = delivery == FM_AT_LEAST_ONCE;
    if (mqtt->out_reliable) {
      mqtt->out_id = fm_mqtt_new_id(mqtt);
    }
    mqtt->out_state = FM_OUT_READY;
    status = FM_OK;
  } else {
    /* not now */
  }
  return status;
}

static bool mqtt_sending(const void *self) { return ((const fm_mqtt_t *)self)->out_state != FM_OUT_NONE; }

static void mqtt_abort(void *self) { fm_mqtt_give_up((fm_mqtt_t *)self); }

static fm_status_t mqtt_fetch(void *self, uint32_t version, uint32_t index) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  fm_status_t status = FM_AGAIN;
  if (mqtt->phase == FM_PHASE_UP) {
    mqtt->fetch_version = version;
    mqtt->fetch_index = index;
    mqtt->due |= FM_MQTT_DUE_FETCH;
    if (mqtt->holds) {
      mqtt->due |= FM_MQTT_DUE_RELEASE;
    }
    status = FM_OK;
  }
  return status;
}

static bool between(char c, char first, char last) { return (c >= first) && (c <= last); }

static bool in_word(char c) {
  return between(c, 'a', 'z') || between(c, 'A', 'Z') || between(c, '0', '9') || (c == '_') || (c == '-');
}

static bool name_valid(const char *name, uint32_t longest) {
  bool valid = (name != NULL) && (name[0] != '\0');
  bool dots = true;
  for (uint32_t i = 0u; valid && (name[i] != '\0'); i++) {
    dots = dots && (name[i] == '.');
    valid = (i < longest) && ((name[i] == '.') || in_word(name[i]));
  }
  return valid && !dots;
}

static bool stream_valid(const fm_stream_api_t *api) {
  return (api != NULL) && (api->open != NULL) && (api->read != NULL) && (api->write != NULL) && (api->close != NULL);
}

static fm_status_t mqtt_check(const fm_mqtt_config_t *config) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if (stream_valid(config->stream.api) && name_valid(config->federation, LONGEST_FEDERATION) &&
      name_valid(config->device_id, FM_MAX_DEVICE_ID) && (config->keep_alive_s != 0u) && (config->buffer != NULL) &&
      ((config->username != NULL) || (config->password == NULL))) {
    status = (config->buffer_size >= FM_MQTT_MIN_BUFFER) ? FM_OK : FM_ERR_BUFFER;
  }
  return status;
}

fm_status_t fm_mqtt_init(fm_mqtt_t *mqtt, const fm_mqtt_config_t *config, fm_link_t *link) {
  static const fm_link_api_t api = {mqtt_poll, mqtt_connection, mqtt_send, mqtt_sending, mqtt_abort, mqtt_fetch};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((mqtt != NULL) && (config != NULL) && (link != NULL)) {
    status = mqtt_check(config);
  }
  if (status == FM_OK) {
    (void)memset(mqtt, 0, sizeof *mqtt);
    mqtt->config = config;
    mqtt->random = (config->seed != 0u) ? config->seed : 0x6D717474u;
    link->api = &api;
    link->self = mqtt;
  }
  return status;
}

void fm_mqtt_close(fm_mqtt_t *mqtt) {
  if ((mqtt->phase >= FM_PHASE_CONNECTING) && (mqtt->packet == FM_PACKET_NONE)) {
    static const uint8_t disconnect[2] = {0xE0u, 0x00u};
    const fm_stream_t *stream = &mqtt->config->stream;
    const uint32_t unsent = mqtt->tx_fill - mqtt->tx_sent;
    if ((unsent == 0u) ||
        (stream->api->write(stream->self, &mqtt->config->buffer[mqtt->tx_sent], unsent) == (int32_t)unsent)) {
      (void)stream->api->write(stream->self, disconnect, sizeof disconnect);
    }
  }
  if (mqtt->phase != FM_PHASE_CLOSED) {
    fm_mqtt_shut(mqtt);
  }
}
