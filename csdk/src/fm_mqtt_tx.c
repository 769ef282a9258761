/* SPDX-License-Identifier: Apache-2.0 */
/* Packets out. A packet's head (all but a publish's body) is generated twice whenever part of it can be written: once
 * to measure it, once to copy the next part. So it needs no buffer of its own and may be longer than the transmit
 * buffer. */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_mqtt_internal.h"

#define DIGITS 11u /* of the largest uint32, and the terminator */

static uint32_t half(const fm_mqtt_t *mqtt) { return mqtt->config->buffer_size / 2u; }

typedef struct {
  fm_mqtt_t *mqtt;
  uint32_t end; /* bytes generated */
  bool copies;
} head_t;

static void add(head_t *head, const void *bytes, uint32_t size) {
  fm_mqtt_t *mqtt = head->mqtt;
  const uint32_t start = head->end;
  const uint32_t room = half(mqtt) - mqtt->tx_fill;
  head->end += size;
  if (head->copies && (mqtt->packet_offset >= start) && (mqtt->packet_offset < head->end)) {
    const uint32_t skip = mqtt->packet_offset - start;
    const uint32_t piece = fm_smaller(size - skip, room);
    (void)memcpy(&mqtt->config->buffer[mqtt->tx_fill], &((const uint8_t *)bytes)[skip], (size_t)piece);
    mqtt->tx_fill += piece;
    mqtt->packet_offset += piece;
  }
}

static void add_u8(head_t *head, uint32_t value) {
  const uint8_t byte = (uint8_t)value;
  add(head, &byte, 1u);
}

static void add_u16(head_t *head, uint32_t value) {
  add_u8(head, value >> 8);
  add_u8(head, value);
}

/* Generate a string from parts, with its length in front. */
static void add_string(head_t *head, const char *const *parts, uint32_t count) {
  uint32_t size = 0u;
  for (uint32_t i = 0u; i < count; i++) {
    size += (uint32_t)strlen(parts[i]);
  }
  add_u16(head, size);
  for (uint32_t i = 0u; i < count; i++) {
    add(head, parts[i], (uint32_t)strlen(parts[i]));
  }
}

static const char *decimal(uint32_t value, char *digits) {
  uint32_t at = DIGITS - 1u;
  uint32_t left = value;
  digits[at] = '\0';
  do {
    const uint32_t tenth = left / 10u;
    at--;
    digits[at] = "0123456789"[left - (10u * tenth)];
    left = tenth;
  } while (left != 0u);
  return &digits[at];
}

#define PREFIX "fm/1/"

/* fm/1/<federation><middle><a>/<b>, or without "/<b>" when it is NULL. */
static void add_topic(head_t *head, const char *middle, const char *a, const char *b) {
  const char *const parts[6] = {PREFIX, head->mqtt->config->federation, middle, a, "/", b};
  add_string(head, parts, (b != NULL) ? 6u : 4u);
}

static void add_up_topic(head_t *head) {
  char shard[DIGITS];
  const char *id = head->mqtt->config->device_id;
  add_topic(head, "/up/", decimal(fm_crc32(0u, id, (uint32_t)strlen(id)) & 0xFFu, shard), id);
}

static void add_model_topic(head_t *head, uint32_t id, uint32_t version, uint32_t index) {
  char digits[2][DIGITS];
  add_u16(head, id);
  add_topic(head, "/model/", decimal(version, digits[0]), decimal(index, digits[1]));
}

/* ---- the packets (MQTT 3.1.1, chapter 3) ---- */

static void add_connect(head_t *head) {
  static const uint8_t protocol[7] = {0x00u, 0x04u, 'M', 'Q', 'T', 'T', 0x04u};
  const fm_mqtt_config_t *config = head->mqtt->config;
  const char *const client_id[3] = {config->federation, ".", config->device_id};
  uint32_t flags = 0u; /* clean session off: the broker queues messages while the device is offline */
  flags |= (config->will != NULL) ? 0x0Cu : 0u; /* at QoS 1 */
  flags |= (config->username != NULL) ? 0x80u : 0u;
  flags |= (config->password != NULL) ? 0x40u : 0u;
  add(head, protocol, sizeof protocol);
  add_u8(head, flags);
  add_u16(head, config->keep_alive_s);
  add_string(head, client_id, 3u);
  if (config->will != NULL) {
    add_up_topic(head);
    add_u16(head, config->will_size);
    add(head, config->will, config->will_size);
  }
  if (config->username != NULL) {
    add_string(head, &config->username, 1u);
  }
  if (config->password != NULL) {
    add_string(head, &config->password, 1u);
  }
}

static void add_publish(head_t *head) {
  const fm_mqtt_t *mqtt = head->mqtt;
  add_up_topic(head);
  if (mqtt->out_reliable) {
    add_u16(head, mqtt->out_id);
  }
  add(head, mqtt->out.head, mqtt->out.head_size);
}

/* Generate the variable header and payload, without a publish's body; return the fixed header's first byte. */
static uint32_t add_packet(head_t *head) {
  const fm_mqtt_t *mqtt = head->mqtt;
  uint32_t type = 0xC0u; /* PINGREQ */
  switch (mqtt->packet) {
  case FM_PACKET_CONNECT:
    type = 0x10u;
    add_connect(head);
    break;
  case FM_PACKET_PUBACK:
    type = 0x40u;
    add_u16(head, mqtt->acks[0]);
    break;
  case FM_PACKET_SUBSCRIBE:
    type = 0x82u;
    add_u16(head, mqtt->subscribe_id);
    add_topic(head, "/dn/", mqtt->config->device_id, NULL);
    add_u8(head, 1u);
    add_topic(head, "/all", "", NULL);
    add_u8(head, 1u);
    break;
  case FM_PACKET_UNSUBSCRIBE:
    type = 0xA2u;
    add_model_topic(head, mqtt->unsubscribe_id, mqtt->former_version, mqtt->former_index);
    break;
  case FM_PACKET_FETCH:
    type = 0x82u;
    add_model_topic(head, mqtt->subscribe_id, mqtt->held_version, mqtt->held_index);
    add_u8(head, 0u);
    break;
  case FM_PACKET_PUBLISH:
    type = 0x30u | (mqtt->out_reliable ? 0x02u : 0u) | ((mqtt->out_reliable && mqtt->out_again) ? 0x08u : 0u);
    add_publish(head);
    break;
  default:
    break;
  }
  return type;
}

uint16_t fm_mqtt_new_id(fm_mqtt_t *mqtt) {
  do {
    mqtt->next_id++;
  } while ((mqtt->next_id == 0u) || (mqtt->next_id == mqtt->out_id) || (mqtt->next_id == mqtt->subscribe_id) ||
           (mqtt->next_id == mqtt->unsubscribe_id));
  return mqtt->next_id;
}

/* ---- choosing and writing ---- */

static bool take_due(fm_mqtt_t *mqtt, uint8_t due, uint8_t packet) {
  const bool taken = (mqtt->due & due) != 0u;
  if (taken) {
    mqtt->due = (uint8_t)(mqtt->due & (uint8_t)~due);
    mqtt->packet = packet;
  }
  return taken;
}

/* Unsubscribe from the chunk that arrived, subscribe to the one asked for. Both topics are remembered until the broker
 * has confirmed, also over connections, as the broker's session is; so no subscription is left over. At most one
 * confirmation is pending. */
static bool choose_model_packet(fm_mqtt_t *mqtt) {
  bool chosen = true;
  if (!mqtt->releases && ((mqtt->due & FM_MQTT_DUE_RELEASE) != 0u)) {
    mqtt->due = (uint8_t)(mqtt->due ^ (FM_MQTT_DUE_RELEASE | FM_MQTT_DUE_UNSUBSCRIBE));
    mqtt->former_version = mqtt->held_version;
    mqtt->former_index = mqtt->held_index;
    mqtt->releases = true;
    mqtt->holds = false;
  }
  if (take_due(mqtt, FM_MQTT_DUE_UNSUBSCRIBE, FM_PACKET_UNSUBSCRIBE)) {
    mqtt->unsubscribe_id = fm_mqtt_new_id(mqtt);
  } else if ((mqtt->phase == FM_PHASE_UP) && !mqtt->holds && take_due(mqtt, FM_MQTT_DUE_FETCH, FM_PACKET_FETCH)) {
    mqtt->subscribe_id = fm_mqtt_new_id(mqtt);
    mqtt->held_version = mqtt->fetch_version;
    mqtt->held_index = mqtt->fetch_index;
    mqtt->holds = true;
  } else {
    chosen = false;
  }
  return chosen;
}

/* Choose the packet to send next, the most urgent first. Before the broker's CONNACK only CONNECT is allowed. */
static void choose_packet(fm_mqtt_t *mqtt) {
  mqtt->packet_offset = 0u;
  if (take_due(mqtt, FM_MQTT_DUE_CONNECT, FM_PACKET_CONNECT) || (mqtt->phase == FM_PHASE_CONNECTING)) {
    /* and then its answer */
  } else if (mqtt->ack_count != 0u) {
    mqtt->packet = FM_PACKET_PUBACK;
  } else if (take_due(mqtt, FM_MQTT_DUE_PING, FM_PACKET_PING)) {
    mqtt->counters.pings++;
  } else if (take_due(mqtt, FM_MQTT_DUE_SUBSCRIBE, FM_PACKET_SUBSCRIBE)) {
    mqtt->subscribe_id = fm_mqtt_new_id(mqtt);
  } else if (choose_model_packet(mqtt)) {
    /* one of the two */
  } else if ((mqtt->phase == FM_PHASE_UP) && (mqtt->out_state == FM_OUT_READY)) {
    mqtt->packet = FM_PACKET_PUBLISH;
    mqtt->out_state = FM_OUT_WRITING;
    mqtt->counters.resent += mqtt->out_again ? 1u : 0u;
  } else {
    /* nothing to send */
  }
}

static void packet_written(fm_mqtt_t *mqtt) {
  if (mqtt->packet == FM_PACKET_PUBACK) {
    mqtt->ack_count--;
    (void)memmove(&mqtt->acks[0], &mqtt->acks[1], mqtt->ack_count * sizeof mqtt->acks[0]);
  } else if (mqtt->packet == FM_PACKET_PUBLISH) {
    mqtt->out_state = mqtt->out_reliable ? FM_OUT_UNACKNOWLEDGED : FM_OUT_NONE;
    mqtt->out_offset = 0u;
  } else {
    /* nothing to note */
  }
  mqtt->packet = FM_PACKET_NONE;
}

/* Copy what fits of the packet's head into the buffer. True: all of it is there. */
static bool copy_head(fm_mqtt_t *mqtt) {
  head_t head = {mqtt, 0u, false};
  const uint32_t type = add_packet(&head);
  uint32_t remaining = head.end + ((mqtt->packet == FM_PACKET_PUBLISH) ? mqtt->out.body_size : 0u);
  head.end = 0u;
  head.copies = true;
  add_u8(&head, type);
  do { /* the remaining length (section 2.2.3) */
    add_u8(&head, (remaining & 0x7Fu) | ((remaining > 127u) ? 0x80u : 0u));
    remaining >>= 7;
  } while (remaining != 0u);
  (void)add_packet(&head);
  return mqtt->packet_offset >= head.end;
}

/* Copy what fits of the publish's body. True: all of it is there. */
static bool copy_body(fm_mqtt_t *mqtt) {
  const uint32_t room = half(mqtt) - mqtt->tx_fill;
  const uint32_t left = mqtt->out.body_size - mqtt->out_offset;
  const uint32_t size = fm_smaller(left, room);
  bool complete = size == left;
  if (size != 0u) {
    if (mqtt->out.read(mqtt->out.user, mqtt->out_offset, &mqtt->config->buffer[mqtt->tx_fill], size) == FM_OK) {
      mqtt->out_offset += size;
      mqtt->tx_fill += size;
    } else {
      fm_mqtt_give_up(mqtt); /* sending it again would fail again */
      complete = false;
    }
  }
  return complete;
}

/* Fill the buffer with packets, whole or in part. */
static void fill(fm_mqtt_t *mqtt) {
  bool more = true;
  while (more) {
    if (mqtt->packet == FM_PACKET_NONE) {
      choose_packet(mqtt);
    }
    more = (mqtt->packet != FM_PACKET_NONE) && (mqtt->tx_fill < half(mqtt)) &&
           ((mqtt->out_offset != 0u) || copy_head(mqtt)) && /* within a body there is no head to make */
           ((mqtt->packet != FM_PACKET_PUBLISH) || copy_body(mqtt));
    if (more) {
      packet_written(mqtt);
    }
  }
}

bool fm_mqtt_transmit(fm_mqtt_t *mqtt) {
  const fm_stream_t *stream = &mqtt->config->stream;
  bool moved = false;
  fill(mqtt);
  if (mqtt->tx_fill > mqtt->tx_sent) {
    const int32_t sent =
        stream->api->write(stream->self, &mqtt->config->buffer[mqtt->tx_sent], mqtt->tx_fill - mqtt->tx_sent);
    if (sent < 0) {
      fm_mqtt_break(mqtt);
    } else if (sent > 0) {
      moved = true;
      mqtt->last_out_ms = mqtt->now_ms;
      if (mqtt->packet != FM_PACKET_NONE) {
        mqtt->last_in_ms = mqtt->now_ms; /* no PINGREQ fits into a packet, so its progress counts as a sign of life */
      }
      mqtt->tx_sent += (uint32_t)sent;
      mqtt->counters.bytes_out += (uint32_t)sent;
    } else {
      /* the stream takes nothing now */
    }
  }
  if (mqtt->tx_sent >= mqtt->tx_fill) {
    mqtt->tx_sent = 0u;
    mqtt->tx_fill = 0u;
  }
  return moved;
}
