/* SPDX-License-Identifier: Apache-2.0 */
/* Packets in, byte by byte. A publish's payload goes straight to the sink. A packet that MQTT 3.1.1 does not allow
 * closes the connection (section 4.8). */
#include "fm_mqtt_internal.h"

#define TYPE_CONNACK 0x20u
#define TYPE_PUBLISH 0x30u
#define TYPE_PUBACK 0x40u
#define TYPE_SUBACK 0x90u
#define TYPE_UNSUBACK 0xB0u
#define TYPE_PINGRESP 0xD0u
#define FLAG_DUP 0x08u
#define FLAG_QOS 0x06u
#define CODE_REFUSED 0x80u
#define CODE_QOS 0x01u

static void malformed(fm_mqtt_t *mqtt) {
  mqtt->counters.malformed++;
  fm_mqtt_break(mqtt);
}

static uint32_t qos(const fm_mqtt_t *mqtt) { return ((uint32_t)mqtt->rx_header >> 1) & 3u; }

static void publish_done(fm_mqtt_t *mqtt) {
  if (qos(mqtt) == 1u) {
    mqtt->acks[mqtt->ack_count] = mqtt->rx_id; /* receive() made sure that there is room */
    mqtt->ack_count++;
  } else if (mqtt->holds && (mqtt->rx_level[0] == mqtt->held_version) && (mqtt->rx_level[1] == mqtt->held_index)) {
    mqtt->due |= FM_MQTT_DUE_RELEASE; /* the chunk that was asked for */
  } else {
    /* any other message at QoS 0 */
  }
  mqtt->rx_stage = FM_RX_HEADER;
  mqtt->sink->end(mqtt->sink->user, true);
}

/* Read only what tells the topic of a model chunk, model/<version>/<index>, from others: all subscribed topics are for
 * this device. False: a character that a topic name must not have (section 3.3.2.1). */
static bool topic_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  if (byte == (uint8_t)'/') {
    mqtt->rx_level[0] = mqtt->rx_level[1];
    mqtt->rx_level[1] = 0u;
  } else {
    mqtt->rx_level[1] = (10u * mqtt->rx_level[1]) + ((uint32_t)byte - (uint32_t)'0');
  }
  return (byte != 0u) && (byte != (uint8_t)'+') && (byte != (uint8_t)'#');
}

static void publish_begins(fm_mqtt_t *mqtt) {
  if ((mqtt->rx_topic == 0u) || ((qos(mqtt) != 0u) && (mqtt->rx_id == 0u))) {
    malformed(mqtt);
  } else {
    mqtt->rx_stage = FM_RX_PAYLOAD;
    mqtt->sink->begin(mqtt->sink->user, mqtt->rx_remaining);
    if (mqtt->rx_remaining == 0u) {
      publish_done(mqtt);
    }
  }
}

/* Topic length, topic, identifier. */
static void publish_head_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  bool valid = true;
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
    valid = topic_byte(mqtt, byte);
  }
  mqtt->rx_have++;
  mqtt->rx_remaining--;
  need = (mqtt->rx_have < 2u) ? 3u : (2u + (uint32_t)mqtt->rx_topic + (2u * qos(mqtt)));
  if (!valid || ((mqtt->rx_have + mqtt->rx_remaining) < need)) {
    malformed(mqtt);
  } else if (mqtt->rx_have >= need) {
    publish_begins(mqtt);
  } else {
    /* more of the head */
  }
}

static void on_connack(fm_mqtt_t *mqtt, uint8_t code) {
  mqtt->counters.last_return_code = code;
  mqtt->counters.session_present = mqtt->rx_first != 0u;
  if ((code > 5u) || (mqtt->rx_first > ((code == 0u) ? 1u : 0u))) {
    malformed(mqtt);
  } else if (code == 0u) {
    fm_mqtt_accepted(mqtt);
  } else if (code == 3u) {
    fm_mqtt_break(mqtt); /* server unavailable: try again soon */
  } else {
    fm_mqtt_refuse(mqtt);
  }
}

static void on_puback(fm_mqtt_t *mqtt) {
  if ((mqtt->out_state == FM_OUT_UNACKNOWLEDGED) && (mqtt->rx_id == mqtt->out_id)) {
    mqtt->out_state = FM_OUT_NONE;
  }
}

/* Two codes answer the first SUBSCRIBE, one that of a chunk; there may be an older one of a chunk that is no longer
 * asked for. */
static void on_suback(fm_mqtt_t *mqtt) {
  const bool first = mqtt->phase == FM_PHASE_SUBSCRIBING;
  const bool expected = mqtt->rx_id == mqtt->subscribe_id;
  if (((mqtt->rx_first & (uint8_t) ~(CODE_REFUSED | CODE_QOS)) != 0u) ||
      (expected && (mqtt->rx_have != (first ? 4u : 3u)))) {
    malformed(mqtt);
  } else if ((mqtt->rx_first & CODE_REFUSED) != 0u) {
    fm_mqtt_refuse(mqtt);
  } else if (expected && first) {
    fm_mqtt_subscribed(mqtt);
  } else {
    /* the broker sends the retained chunk next */
  }
}

static void on_unsuback(fm_mqtt_t *mqtt) {
  if (mqtt->rx_id == mqtt->unsubscribe_id) {
    mqtt->releases = false;
  }
}

static void short_done(fm_mqtt_t *mqtt, uint8_t last) {
  const uint32_t type = mqtt->rx_header; /* its flags are 0 */
  if (type == TYPE_CONNACK) {
    on_connack(mqtt, last);
  } else if (mqtt->rx_id == 0u) {
    malformed(mqtt);
  } else if (type == TYPE_PUBACK) {
    on_puback(mqtt);
  } else if (type == TYPE_SUBACK) {
    on_suback(mqtt);
  } else {
    on_unsuback(mqtt);
  }
}

/* CONNACK, PUBACK, SUBACK, UNSUBACK: at most an identifier and two return codes. */
static void short_byte(fm_mqtt_t *mqtt, uint8_t byte) {
  mqtt->rx_have++;
  mqtt->rx_remaining--;
  if (mqtt->rx_have == 1u) {
    mqtt->rx_first = byte;
  } else if (mqtt->rx_have == 2u) {
    mqtt->rx_id = (uint16_t)(((uint32_t)mqtt->rx_first << 8) | byte);
  } else {
    mqtt->rx_first = (mqtt->rx_have == 3u) ? byte : (mqtt->rx_first | byte); /* return codes of a SUBACK */
  }
  if (mqtt->rx_remaining == 0u) {
    mqtt->rx_stage = FM_RX_HEADER;
    short_done(mqtt, byte);
  }
}

/* Sizes and flags that the fixed header allows (sections 2.2.2 and 3). The broker's first packet is a CONNACK, and
 * there is no other. */
static bool header_valid(const fm_mqtt_t *mqtt) {
  const uint32_t size = mqtt->rx_remaining;
  const uint8_t header = mqtt->rx_header;
  bool valid = false;
  if ((header == TYPE_CONNACK) != (mqtt->phase == FM_PHASE_CONNECTING)) {
    /* out of turn */
  } else if ((header & 0xF0u) == TYPE_PUBLISH) {
    valid = (size >= 3u) && ((qos(mqtt) == 1u) || ((header & (FLAG_QOS | FLAG_DUP)) == 0u));
  } else if (header == TYPE_SUBACK) {
    valid = (size - 3u) <= 1u;
  } else if (header == TYPE_PINGRESP) {
    valid = size == 0u;
  } else {
    valid = (size == 2u) && ((header == TYPE_CONNACK) || (header == TYPE_PUBACK) || (header == TYPE_UNSUBACK));
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
    mqtt->rx_level[0] = 0u;
    mqtt->rx_level[1] = 0u;
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
  bool moved = false;
  if (mqtt->rx_at >= mqtt->rx_fill) {
    const int32_t got = stream->api->read(stream->self, bytes, room);
    mqtt->rx_at = 0u;
    mqtt->rx_fill = (got > 0) ? (uint32_t)got : 0u;
    mqtt->counters.bytes_in += mqtt->rx_fill;
    if (got > 0) {
      mqtt->last_in_ms = mqtt->now_ms;
    } else if (got < 0) {
      fm_mqtt_break(mqtt);
    } else {
      /* nothing came */
    }
  }
  /* Without room for another acknowledgement nothing is read, and the broker waits. A break empties the buffer. */
  while ((mqtt->rx_at < mqtt->rx_fill) && (mqtt->ack_count < (uint8_t)FM_MQTT_PENDING_ACKS)) {
    moved = true;
    if (mqtt->rx_stage == FM_RX_PAYLOAD) {
      mqtt->rx_at += payload(mqtt, &bytes[mqtt->rx_at], mqtt->rx_fill - mqtt->rx_at);
    } else {
      mqtt->rx_at++;
      one_byte(mqtt, bytes[mqtt->rx_at - 1u]);
    }
  }
  return moved;
}
