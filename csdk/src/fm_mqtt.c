/* SPDX-License-Identifier: Apache-2.0 */
/* The MQTT link's life: connecting, keeping alive, losing and finding the broker; what to send when. Packets are
 * written by fm_mqtt_tx.c and read by fm_mqtt_rx.c. Sections named are those of the MQTT 3.1.1 specification. */
#include "fedmote/fm_mqtt.h"

#include <string.h>

#include "fm_mqtt_internal.h"

#define HANDSHAKE_MS 10000u
#define OPENING_POLL_MS 10u
#define BLOCKED_POLL_MS 10u
#define DEFAULT_BACKOFF_MIN_MS 500u
#define DEFAULT_BACKOFF_MAX_MS 60000u
#define ROUNDS_A_POLL 8u
#define LONGEST_FEDERATION 32u

static uint32_t next_random(fm_mqtt_t *mqtt) {
  uint32_t x = mqtt->random; /* xorshift32 (Marsaglia 2003) */
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  mqtt->random = x;
  return x;
}

static void lower(uint32_t *wait_ms, uint32_t to) {
  if (to < *wait_ms) {
    *wait_ms = to;
  }
}

static void enter(fm_mqtt_t *mqtt, uint8_t phase) {
  mqtt->phase = phase;
  mqtt->phase_at_ms = mqtt->now_ms;
}

/* Wait uniformly in [w/2, w], w doubling from one failure to the next. */
static void back_off(fm_mqtt_t *mqtt) {
  const uint32_t least = (mqtt->config->backoff_min_ms != 0u) ? mqtt->config->backoff_min_ms : DEFAULT_BACKOFF_MIN_MS;
  const uint32_t most = (mqtt->config->backoff_max_ms != 0u) ? mqtt->config->backoff_max_ms : DEFAULT_BACKOFF_MAX_MS;
  uint32_t next = (mqtt->backoff_ms == 0u) ? least : mqtt->backoff_ms;
  if (mqtt->refused || (next > most)) {
    next = most;
  }
  mqtt->wait_ms = next - (next_random(mqtt) % ((next / 2u) + 1u));
  mqtt->backoff_ms = (next > (most / 2u)) ? most : (2u * next);
}

/* Nothing of a publish has reached the stream, or all of it awaits the acknowledgement: it can be forgotten, or sent
 * again whole. */
static void rewind_out(fm_mqtt_t *mqtt) {
  if (mqtt->out_state != FM_OUT_NONE) {
    if (mqtt->out_reliable) {
      mqtt->out_again = mqtt->out_again || (mqtt->out_state != FM_OUT_READY);
      mqtt->out_state = FM_OUT_READY;
    } else {
      mqtt->out_state = FM_OUT_NONE;
    }
  }
  mqtt->out_offset = 0u;
}

void fm_mqtt_break(fm_mqtt_t *mqtt) {
  mqtt->config->stream.api->close(mqtt->config->stream.self);
  mqtt->counters.failures++;
  if ((mqtt->rx_stage == FM_RX_PAYLOAD) && (mqtt->sink != NULL)) {
    mqtt->sink->end(mqtt->sink->user, false);
  }
  mqtt->rx_stage = FM_RX_HEADER;
  mqtt->tx_fill = 0u;
  mqtt->tx_sent = 0u;
  mqtt->packet = FM_PACKET_NONE;
  mqtt->ack_count = 0u; /* the broker sends those messages again */
  mqtt->due = (mqtt->held_version != 0u) ? FM_MQTT_DUE_UNSUBSCRIBE : 0u;
  rewind_out(mqtt);
  enter(mqtt, FM_PHASE_CLOSED);
  back_off(mqtt);
}

void fm_mqtt_accepted(fm_mqtt_t *mqtt) {
  mqtt->counters.connections++;
  mqtt->due |= FM_MQTT_DUE_SUBSCRIBE;
  enter(mqtt, FM_PHASE_SUBSCRIBING);
}

void fm_mqtt_subscribed(fm_mqtt_t *mqtt) {
  mqtt->connection++;
  mqtt->connection += (mqtt->connection == 0u) ? 1u : 0u;
  mqtt->backoff_ms = 0u;
  mqtt->refused = false;
  enter(mqtt, FM_PHASE_UP);
}

void fm_mqtt_refuse(fm_mqtt_t *mqtt) {
  mqtt->counters.refused++;
  mqtt->refused = true;
  fm_mqtt_break(mqtt);
}

/* ---- the phases ---- */

static void open_stream(fm_mqtt_t *mqtt) {
  const fm_status_t status = mqtt->config->stream.api->open(mqtt->config->stream.self);
  if (status == FM_OK) {
    mqtt->last_in_ms = mqtt->now_ms;
    mqtt->last_out_ms = mqtt->now_ms;
    mqtt->due |= FM_MQTT_DUE_CONNECT;
    enter(mqtt, FM_PHASE_CONNECTING);
  } else if (status != FM_AGAIN) {
    fm_mqtt_break(mqtt);
  } else {
    /* in progress */
  }
}

static uint32_t since(const fm_mqtt_t *mqtt, uint32_t then_ms) { return mqtt->now_ms - then_ms; }

/* Give up what takes too long, ping what is idle. */
static void watch(fm_mqtt_t *mqtt) {
  const uint32_t keep_alive = 1000u * (uint32_t)mqtt->config->keep_alive_s;
  if (mqtt->phase != FM_PHASE_UP) {
    if (since(mqtt, mqtt->phase_at_ms) >= HANDSHAKE_MS) {
      fm_mqtt_break(mqtt);
    }
  } else if (since(mqtt, mqtt->last_in_ms) >= (keep_alive + (keep_alive / 2u))) {
    mqtt->counters.silent++;
    fm_mqtt_break(mqtt);
  } else if ((since(mqtt, mqtt->last_out_ms) >= (keep_alive - (keep_alive / 4u))) ||
             (since(mqtt, mqtt->last_in_ms) >= (keep_alive - (keep_alive / 4u)))) {
    if (since(mqtt, mqtt->phase_at_ms) >= (keep_alive / 4u)) { /* one ping a quarter is enough to wait for */
      mqtt->phase_at_ms = mqtt->now_ms;
      mqtt->due |= FM_MQTT_DUE_PING;
    }
  } else {
    /* all is well */
  }
}

static void say_wait(const fm_mqtt_t *mqtt, uint32_t *wait_ms) {
  if (mqtt->phase == FM_PHASE_CLOSED) {
    const uint32_t gone = since(mqtt, mqtt->phase_at_ms);
    lower(wait_ms, (gone < mqtt->wait_ms) ? (mqtt->wait_ms - gone) : 0u);
  } else if (mqtt->phase == FM_PHASE_OPENING) {
    lower(wait_ms, OPENING_POLL_MS);
  } else {
    lower(wait_ms, 250u * (uint32_t)mqtt->config->keep_alive_s);
    if (mqtt->tx_fill != mqtt->tx_sent) {
      lower(wait_ms, BLOCKED_POLL_MS); /* or call when the stream can be written */
    }
  }
}

static fm_status_t mqtt_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  mqtt->now_ms = now_ms;
  mqtt->sink = sink;
  if ((mqtt->phase == FM_PHASE_CLOSED) && (since(mqtt, mqtt->phase_at_ms) >= mqtt->wait_ms)) {
    enter(mqtt, FM_PHASE_OPENING);
  }
  if (mqtt->phase == FM_PHASE_OPENING) {
    open_stream(mqtt);
  }
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
  if (mqtt->phase != FM_PHASE_CLOSED) {
    watch(mqtt);
  }
  say_wait(mqtt, wait_ms);
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
  if ((mqtt->phase == FM_PHASE_UP) && (mqtt->out_state == FM_OUT_NONE)) {
    mqtt->out = *message;
    mqtt->out_offset = 0u;
    mqtt->out_again = false;
    mqtt->out_reliable = delivery == FM_AT_LEAST_ONCE;
    if (mqtt->out_reliable) {
      mqtt->out_id = fm_mqtt_new_id(mqtt);
    }
    mqtt->out_state = FM_OUT_READY;
    status = FM_OK;
  }
  return status;
}

static bool mqtt_sending(const void *self) { return ((const fm_mqtt_t *)self)->out_state != FM_OUT_NONE; }

static void mqtt_abort(void *self) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  if (mqtt->out_state == FM_OUT_WRITING) {
    mqtt->out_reliable = false;
    fm_mqtt_break(mqtt); /* MQTT has no other way to take back half a packet */
  }
  mqtt->out_state = FM_OUT_NONE;
}

static fm_status_t mqtt_fetch(void *self, uint32_t version, uint32_t index) {
  fm_mqtt_t *mqtt = (fm_mqtt_t *)self;
  fm_status_t status = FM_AGAIN;
  if (mqtt->phase == FM_PHASE_UP) {
    mqtt->fetch_version = version;
    mqtt->fetch_index = index;
    if (mqtt->held_version != 0u) {
      mqtt->due |= FM_MQTT_DUE_UNSUBSCRIBE;
    }
    mqtt->due |= FM_MQTT_DUE_FETCH;
    status = FM_OK;
  }
  return status;
}

static bool name_valid(const char *name, uint32_t longest) {
  bool valid = (name != NULL) && (name[0] != '\0');
  bool dots = true;
  uint32_t length = 0u;
  while (valid && (name[length] != '\0')) {
    const char c = name[length];
    const bool word = ((c >= 'a') && (c <= 'z')) || ((c >= 'A') && (c <= 'Z')) || ((c >= '0') && (c <= '9')) ||
                      (c == '_') || (c == '-');
    dots = dots && (c == '.');
    length++;
    valid = (word || (c == '.')) && (length <= longest);
  }
  return valid && !dots;
}

static bool stream_valid(const fm_stream_api_t *api) {
  return (api != NULL) && (api->open != NULL) && (api->read != NULL) && (api->write != NULL) && (api->close != NULL);
}

fm_status_t fm_mqtt_init(fm_mqtt_t *mqtt, const fm_mqtt_config_t *config, fm_link_t *link) {
  static const fm_link_api_t api = {mqtt_poll, mqtt_connection, mqtt_send, mqtt_sending, mqtt_abort, mqtt_fetch};
  fm_status_t status = FM_OK;
  if ((mqtt == NULL) || (config == NULL) || (link == NULL)) {
    status = FM_ERR_ARGUMENT;
  } else if (!stream_valid(config->stream.api) || !name_valid(config->federation, LONGEST_FEDERATION) ||
             !name_valid(config->device_id, FM_MAX_DEVICE_ID)) {
    status = FM_ERR_ARGUMENT;
  } else if ((config->keep_alive_s == 0u) || (config->buffer == NULL) ||
             ((config->username == NULL) && (config->password != NULL))) {
    status = FM_ERR_ARGUMENT;
  } else if (config->buffer_size < FM_MQTT_MIN_BUFFER) {
    status = FM_ERR_BUFFER;
  } else {
    (void)memset(mqtt, 0, sizeof *mqtt);
    mqtt->config = config;
    mqtt->random = (config->seed != 0u) ? config->seed : 0x6D717474u;
    link->api = &api;
    link->self = mqtt;
  }
  return status;
}

void fm_mqtt_close(fm_mqtt_t *mqtt) {
  if (mqtt->phase == FM_PHASE_UP) {
    static const uint8_t disconnect[2] = {0xE0u, 0x00u};
    const fm_stream_t *stream = &mqtt->config->stream;
    if ((mqtt->tx_fill == mqtt->tx_sent) && (mqtt->packet == FM_PACKET_NONE)) {
      (void)stream->api->write(stream->self, disconnect, sizeof disconnect);
    }
  }
  if (mqtt->phase != FM_PHASE_CLOSED) {
    fm_mqtt_break(mqtt);
  }
}
