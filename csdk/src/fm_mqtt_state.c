/* SPDX-License-Identifier: Apache-2.0 */
/* The MQTT link's states: entering one, closing the connection, and how long to wait before the next one. */
#include "fm_bits.h"
#include "fm_mqtt_internal.h"

#define DEFAULT_BACKOFF_MIN_MS 500u
#define DEFAULT_BACKOFF_MAX_MS 60000u

/* Wait uniformly in [w/2, w], w doubling from one failure to the next. */
static void back_off(fm_mqtt_t *mqtt) {
  const uint32_t least = (mqtt->config->backoff_min_ms != 0u) ? mqtt->config->backoff_min_ms : DEFAULT_BACKOFF_MIN_MS;
  const uint32_t most = (mqtt->config->backoff_max_ms != 0u) ? mqtt->config->backoff_max_ms : DEFAULT_BACKOFF_MAX_MS;
  uint32_t next = (mqtt->backoff_ms == 0u) ? least : mqtt->backoff_ms;
  if (mqtt->refused || (next > most)) {
    next = most;
  }
  mqtt->wait_ms = next - (fm_xorshift(&mqtt->random) % ((next / 2u) + 1u));
  mqtt->backoff_ms = (next > (most / 2u)) ? most : (2u * next);
}

/* An unacknowledged message is sent again from its start, or dropped. */
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

/* The sink is set only during a poll. A break outside of it is reported by the next one. */
void fm_mqtt_forget_incoming(fm_mqtt_t *mqtt) {
  if (mqtt->sink != NULL) {
    if (mqtt->rx_stage == FM_RX_PAYLOAD) {
      mqtt->sink->end(mqtt->sink->user, false);
    }
    mqtt->rx_stage = FM_RX_HEADER;
  }
}

/* Close. The next poll opens again, unless back_off() says otherwise. */
void fm_mqtt_shut(fm_mqtt_t *mqtt) {
  mqtt->config->stream.api->close(mqtt->config->stream.self);
  fm_mqtt_forget_incoming(mqtt);
  mqtt->rx_fill = 0u;
  mqtt->rx_at = 0u;
  mqtt->tx_fill = 0u;
  mqtt->tx_sent = 0u;
  mqtt->packet = FM_PACKET_NONE;
  mqtt->ack_count = 0u; /* the broker sends those messages again */
  mqtt->due = 0u;       /* the subscription to a chunk survives the connection */
  if (mqtt->releases) {
    mqtt->due |= FM_MQTT_DUE_UNSUBSCRIBE;
  }
  if (mqtt->holds) {
    mqtt->due |= FM_MQTT_DUE_RELEASE;
  }
  rewind_out(mqtt);
  mqtt->wait_ms = 0u;
  fm_mqtt_enter(mqtt, FM_PHASE_CLOSED);
}

void fm_mqtt_break(fm_mqtt_t *mqtt) {
  mqtt->counters.failures++;
  fm_mqtt_shut(mqtt);
  back_off(mqtt);
}

void fm_mqtt_give_up(fm_mqtt_t *mqtt) {
  const uint32_t written = mqtt->packet_offset + mqtt->out_offset;
  if (mqtt->out_state == FM_OUT_WRITING) {
    if (written <= (mqtt->tx_fill - mqtt->tx_sent)) { /* its written part is at the buffer's end */
      mqtt->tx_fill -= written;
      mqtt->packet = FM_PACKET_NONE;
    } else {
      fm_mqtt_shut(mqtt);
    }
  }
  mqtt->out_state = FM_OUT_NONE;
  mqtt->out_offset = 0u;
}

void fm_mqtt_accepted(fm_mqtt_t *mqtt) {
  mqtt->counters.connections++;
  mqtt->due |= FM_MQTT_DUE_SUBSCRIBE;
  fm_mqtt_enter(mqtt, FM_PHASE_SUBSCRIBING);
}

void fm_mqtt_subscribed(fm_mqtt_t *mqtt) {
  mqtt->connection++;
  mqtt->connection += (mqtt->connection == 0u) ? 1u : 0u;
  mqtt->backoff_ms = 0u;
  mqtt->refused = false;
  fm_mqtt_enter(mqtt, FM_PHASE_UP);
}

void fm_mqtt_refuse(fm_mqtt_t *mqtt) {
  mqtt->counters.refused++;
  mqtt->refused = true;
  fm_mqtt_break(mqtt);
}
