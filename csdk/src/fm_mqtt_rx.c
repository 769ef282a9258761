/* SPDX-License-Identifier: Apache-2.0 */
/* Packets in, byte by byte; a publish's payload goes straight on to the sink. What MQTT 3.1.1 does not allow costs the
 * connection (section 4.8). */
#include "fm_mqtt_internal.h"

#define TYPE_CONNACK 0x20u
#define TYPE_PUBLISH 0x30u
#define TYPE_PUBACK 0x40u
#define TYPE_SUBACK 0x90u
#define TYPE_UNSUBACK 0xB0u
#define TYPE_PINGRESP 0xD0u
#define FLAG_RETAIN 0x01u

static void malformed(fm_mqtt_t *mqtt) {
  mqtt->counters.malformed++;
  fm_mqtt_break(mqtt);
}

static uint32_t qos(const fm_mqtt_t *mqtt) { return ((uint32_t)mqtt->rx_header >> 1) & 3u; }

static void publish_done(fm_mqtt_t *mqtt) {
  if (qos(mqtt) == 1u) {
    mqtt->acks[mqtt->ack_count] = mqtt->rx_id; /* receive() made sure that there is room */
    mqtt->ack_count++;
  }
  if (((mqtt->rx_header & FLAG_RETAIN) != 0u) && (mqtt->held_version != 0u)) {
    mqtt->due |= FM_MQTT_DUE_UNSUBSCRIBE; /* a retained message is the chunk that was asked for */
  }
  mqtt->rx_stage = FM_RX_HEADER;
  mqtt->sink->end(mqtt->sink->user, true);
}

/* Topic length, topic (which needs no reading: whatever was subscribed is for this device), identifier. */
static void publish_head_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  uint32_t need;
  if (mqtt->rx_have == 0u) {
    mqtt->rx_topic = (uint16_t)((uint32_t)byte << 8);
  } else if (mqtt->rx_have == 1u) {
    mqtt->rx_topic = (uint16_t)(mqtt->rx_topic | byte);
  } else if (mqtt->rx_have == (mqtt->rx_topic + 2u)) {
    mqtt->rx_id = (uint16_t)((uint32_t)byte << 8);
  } else if (mqtt->rx_have == (mqtt->rx_topic + 3u)) {
    mqtt->rx_id = (uint16_t)(mqtt->rx_id | byte);
  } else {
    /* the topic */
  }
  mqtt->rx_have++;
  mqtt->rx_remaining--;
  need = (mqtt->rx_have < 2u) ? 2u : (2u + (uint32_t)mqtt->rx_topic + ((qos(mqtt) != 0u) ? 2u : 0u));
  if (mqtt->rx_have >= need) {
    if ((mqtt->rx_topic == 0u) || ((qos(mqtt) != 0u) && (mqtt->rx_id == 0u))) {
      malformed(mqtt);
    } else {
      mqtt->rx_stage = FM_RX_PAYLOAD;
      mqtt->sink->begin(mqtt->sink->user, mqtt->rx_remaining);
      if (mqtt->rx_remaining == 0u) {
        publish_done(mqtt);
      }
    }
  } else if (mqtt->rx_remaining < (need - mqtt->rx_have)) {
    malformed(mqtt);
  } else {
    /* more of the head */
  }
}

static void on_connack(fm_mqtt_t *mqtt, uint8_t code) {
  mqtt->counters.last_return_code = code;
  if (mqtt->phase != FM_PHASE_CONNECTING) {
    malformed(mqtt);
  } else if (code == 0u) {
    mqtt->counters.session_present = (mqtt->rx_first & 1u) != 0u;
    fm_mqtt_accepted(mqtt);
  } else if (code == 3u) {
    fm_mqtt_break(mqtt); /* server unavailable: passes */
  } else {
    fm_mqtt_refuse(mqtt);
  }
}

static void on_puback(fm_mqtt_t *mqtt) {
  if ((mqtt->out_state == FM_OUT_UNACKNOWLEDGED) && (mqtt->rx_id == mqtt->out_id)) {
    mqtt->out_state = FM_OUT_NONE;
  }
}

static void on_suback(fm_mqtt_t *mqtt) {
  if ((mqtt->phase == FM_PHASE_SUBSCRIBING) && (mqtt->rx_id == mqtt->subscribe_id)) {
    fm_mqtt_subscribed(mqtt);
  }
}

/* CONNACK, PUBACK, SUBACK, UNSUBACK: at most an identifier and two return codes. */
static void short_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  const uint32_t type = mqtt->rx_header & 0xF0u;
  if (mqtt->rx_have == 0u) {
    mqtt->rx_first = byte;
  } else if (mqtt->rx_have == 1u) {
    mqtt->rx_id = (uint16_t)(((uint32_t)mqtt->rx_first << 8) | byte);
  } else if (byte == 0x80u) {
    mqtt->rx_stage = FM_RX_HEADER;
    fm_mqtt_refuse(mqtt); /* a subscription was not granted */
  } else {
    /* the granted QoS */
  }
  if (mqtt->rx_stage == FM_RX_SHORT) {
    mqtt->rx_have++;
    mqtt->rx_remaining--;
    if (mqtt->rx_remaining == 0u) {
      mqtt->rx_stage = FM_RX_HEADER;
      if (type == TYPE_CONNACK) {
        on_connack(mqtt, byte);
      } else if (type == TYPE_PUBACK) {
        on_puback(mqtt);
      } else if (type == TYPE_SUBACK) {
        on_suback(mqtt);
      } else {
        /* UNSUBACK: nobody waits for it */
      }
    }
  }
}

/* Sizes and flags that the fixed header allows (sections 2.2.2 and 3). */
static bool header_valid(const fm_mqtt_t *mqtt) {
  const uint32_t remaining = mqtt->rx_remaining;
  bool valid;
  switch (mqtt->rx_header & 0xF0u) {
  case TYPE_PUBLISH:
    valid = (qos(mqtt) < 2u) && (remaining >= 3u) && (mqtt->phase != FM_PHASE_CONNECTING);
    break;
  case TYPE_CONNACK:
  case TYPE_PUBACK:
  case TYPE_UNSUBACK:
    valid = ((mqtt->rx_header & 0x0Fu) == 0u) && (remaining == 2u);
    break;
  case TYPE_SUBACK:
    valid = ((mqtt->rx_header & 0x0Fu) == 0u) && (remaining >= 3u) && (remaining <= 4u);
    break;
  case TYPE_PINGRESP:
    valid = ((mqtt->rx_header & 0x0Fu) == 0u) && (remaining == 0u);
    break;
  default:
    valid = false;
    break;
  }
  return valid;
}

static void length_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  mqtt->rx_remaining |= ((uint32_t)byte & 0x7Fu) << mqtt->rx_shift;
  mqtt->rx_shift = (uint8_t)(mqtt->rx_shift + 7u);
  if ((byte & 0x80u) != 0u) {
    if (mqtt->rx_shift > 21u) {
      malformed(mqtt); /* the length has four bytes at most */
    }
  } else if (!header_valid(mqtt)) {
    malformed(mqtt);
  } else {
    mqtt->counters.packets_in++;
    mqtt->rx_have = 0u;
    if ((mqtt->rx_header & 0xF0u) == TYPE_PUBLISH) {
      mqtt->rx_stage = FM_RX_PUBLISH;
    } else {
      mqtt->rx_stage = (mqtt->rx_remaining == 0u) ? FM_RX_HEADER : FM_RX_SHORT;
    }
  }
}

static void one_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  switch (mqtt->rx_stage) {
  case FM_RX_LENGTH:
    length_byte(mqtt, byte);
    break;
  case FM_RX_SHORT:
    short_byte(mqtt, byte);
    break;
  case FM_RX_PUBLISH:
    publish_head_byte(mqtt, byte);
    break;
  default:
    mqtt->rx_header = byte;
    mqtt->rx_remaining = 0u;
    mqtt->rx_shift = 0u;
    mqtt->rx_stage = FM_RX_LENGTH;
    break;
  }
}

static uint32_t payload(fm_mqtt_t *mqtt, const uint8_t *bytes, uint32_t size) {
  const uint32_t piece = (size < mqtt->rx_remaining) ? size : mqtt->rx_remaining;
  mqtt->sink->data(mqtt->sink->user, bytes, piece);
  mqtt->rx_remaining -= piece;
  if (mqtt->rx_remaining == 0u) {
    publish_done(mqtt);
  }
  return piece;
}

bool fm_mqtt_receive(fm_mqtt_t *mqtt) {
  const fm_stream_t *stream = &mqtt->config->stream;
  uint8_t *bytes = &mqtt->config->buffer[mqtt->config->buffer_size / 2u];
  const uint32_t room = mqtt->config->buffer_size - (mqtt->config->buffer_size / 2u);
  /* A publish at QoS 1 takes 8 bytes at the least. Behind the payload in hand, read no more of them than can be
   * acknowledged: the broker waits. */
  const uint32_t free_acks = (uint32_t)FM_MQTT_PENDING_ACKS - mqtt->ack_count;
  const uint32_t behind = 8u * free_acks;
  uint32_t most = behind;
  int32_t got = 0;
  if ((mqtt->rx_stage == FM_RX_PAYLOAD) && (mqtt->rx_remaining > 8u)) {
    most = (mqtt->rx_remaining < room) ? (mqtt->rx_remaining - 8u + behind) : room;
  }
  if (free_acks != 0u) {
    got = stream->api->read(stream->self, bytes, (most < room) ? most : room);
  }
  if (got < 0) {
    fm_mqtt_break(mqtt);
  } else if (got > 0) {
    uint32_t at = 0u;
    mqtt->last_in_ms = mqtt->now_ms;
    mqtt->counters.bytes_in += (uint32_t)got;
    while ((at < (uint32_t)got) && (mqtt->phase >= FM_PHASE_CONNECTING)) {
      if (mqtt->rx_stage == FM_RX_PAYLOAD) {
        at += payload(mqtt, &bytes[at], (uint32_t)got - at);
      } else {
        one_byte(mqtt, bytes[at]);
        at++;
      }
    }
  } else {
    /* nothing came */
  }
  return got > 0;
}
