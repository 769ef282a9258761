/* SPDX-License-Identifier: Apache-2.0 */
/* Packets out. A packet's head is a list of pieces (constants, numbers, parts of topics) that is made anew each time
 * some of it can be written, so that it needs no buffer of its own and may be longer than the transmit buffer. */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_mqtt_internal.h"

#define MOST_PIECES 24u /* CONNECT with everything has 21 */
#define SCRATCH 48u

typedef struct {
  const uint8_t *piece[MOST_PIECES];
  uint16_t size[MOST_PIECES];
  uint32_t count;
  uint8_t scratch[SCRATCH];
  uint32_t used;
} head_t;

static void add(head_t *head, const void *bytes, uint32_t size) {
  head->piece[head->count] = (const uint8_t *)bytes;
  head->size[head->count] = (uint16_t)size;
  head->count++;
}

static void add_text(head_t *head, const char *text) { add(head, text, (uint32_t)strlen(text)); }

static void add_u8(head_t *head, uint32_t value) {
  head->scratch[head->used] = (uint8_t)value;
  add(head, &head->scratch[head->used], 1u);
  head->used++;
}

static void add_u16(head_t *head, uint32_t value) {
  head->scratch[head->used] = (uint8_t)(value >> 8);
  head->scratch[head->used + 1u] = (uint8_t)value;
  add(head, &head->scratch[head->used], 2u);
  head->used += 2u;
}

static void add_decimal(head_t *head, uint32_t value) {
  const uint32_t end = head->used + 10u; /* digits of the largest uint32 */
  uint32_t at = end;
  uint32_t left = value;
  do {
    at--;
    head->scratch[at] = (uint8_t)('0' + (left % 10u));
    left /= 10u;
  } while (left != 0u);
  add(head, &head->scratch[at], end - at);
  head->used = end;
}

/* A string's length goes before it: open, add its parts, close. */
static uint32_t open_string(head_t *head) {
  add_u16(head, 0u);
  return head->count - 1u;
}

static void close_string(head_t *head, uint32_t opened) {
  uint32_t size = 0u;
  uint8_t *length = &head->scratch[head->piece[opened] - head->scratch];
  for (uint32_t i = opened + 1u; i < head->count; i++) {
    size += head->size[i];
  }
  length[0] = (uint8_t)(size >> 8);
  length[1] = (uint8_t)size;
}

static void add_string(head_t *head, const char *text) {
  const uint32_t opened = open_string(head);
  add_text(head, text);
  close_string(head, opened);
}

static void add_prefix(head_t *head, const fm_mqtt_t *mqtt) {
  static const char version[] = "fm/1/";
  add_text(head, version);
  add_text(head, mqtt->config->federation);
}

static void add_up_topic(head_t *head, const fm_mqtt_t *mqtt) {
  const char *id = mqtt->config->device_id;
  const uint32_t opened = open_string(head);
  add_prefix(head, mqtt);
  add_text(head, "/up/");
  add_decimal(head, fm_crc32(0u, id, (uint32_t)strlen(id)) & 0xFFu);
  add_text(head, "/");
  add_text(head, id);
  close_string(head, opened);
}

static void add_model_topic(head_t *head, const fm_mqtt_t *mqtt, uint32_t version, uint32_t index) {
  const uint32_t opened = open_string(head);
  add_prefix(head, mqtt);
  add_text(head, "/model/");
  add_decimal(head, version);
  add_text(head, "/");
  add_decimal(head, index);
  close_string(head, opened);
}

/* ---- the packets (MQTT 3.1.1, chapter 3) ---- */

static void connect_head(head_t *head, const fm_mqtt_t *mqtt) {
  static const uint8_t protocol[7] = {0x00u, 0x04u, 'M', 'Q', 'T', 'T', 0x04u};
  const fm_mqtt_config_t *config = mqtt->config;
  uint32_t flags = 0u; /* clean session off: the broker keeps what comes while the device is away */
  uint32_t opened;
  flags |= (config->will != NULL) ? 0x0Cu : 0u; /* at QoS 1 */
  flags |= (config->username != NULL) ? 0x80u : 0u;
  flags |= (config->password != NULL) ? 0x40u : 0u;
  add(head, protocol, sizeof protocol);
  add_u8(head, flags);
  add_u16(head, config->keep_alive_s);
  opened = open_string(head);
  add_text(head, config->federation);
  add_text(head, ".");
  add_text(head, config->device_id);
  close_string(head, opened);
  if (config->will != NULL) {
    add_up_topic(head, mqtt);
    add_u16(head, config->will_size);
    add(head, config->will, config->will_size);
  }
  if (config->username != NULL) {
    add_string(head, config->username);
  }
  if (config->password != NULL) {
    add_string(head, config->password);
  }
}

static void subscribe_head(head_t *head, const fm_mqtt_t *mqtt) {
  uint32_t opened;
  add_u16(head, mqtt->subscribe_id);
  opened = open_string(head);
  add_prefix(head, mqtt);
  add_text(head, "/dn/");
  add_text(head, mqtt->config->device_id);
  close_string(head, opened);
  add_u8(head, 1u);
  opened = open_string(head);
  add_prefix(head, mqtt);
  add_text(head, "/all");
  close_string(head, opened);
  add_u8(head, 1u);
}

static void publish_head(head_t *head, const fm_mqtt_t *mqtt) {
  add_up_topic(head, mqtt);
  if (mqtt->out_reliable) {
    add_u16(head, mqtt->out_id);
  }
  add(head, mqtt->out.head, mqtt->out.head_size);
}

/* Put the fixed header, with the remaining length (section 2.2.3), into pieces 0 and 1, which were kept free. */
static void close_head(head_t *head, uint32_t type, uint32_t body_size) {
  uint32_t remaining = body_size;
  const uint32_t at = head->used;
  for (uint32_t i = 1u; i < head->count; i++) {
    remaining += head->size[i];
  }
  head->scratch[head->used] = (uint8_t)type;
  head->used++;
  do {
    const uint32_t more = (remaining > 127u) ? 0x80u : 0u;
    head->scratch[head->used] = (uint8_t)((remaining & 0x7Fu) | more);
    head->used++;
    remaining >>= 7;
  } while (remaining != 0u);
  head->piece[0] = &head->scratch[at];
  head->size[0] = (uint16_t)(head->used - at);
}

static void make_head(head_t *head, const fm_mqtt_t *mqtt) {
  uint32_t type = 0xC0u; /* PINGREQ */
  uint32_t body = 0u;
  head->count = 1u;
  head->used = 0u;
  switch (mqtt->packet) {
  case FM_PACKET_CONNECT:
    type = 0x10u;
    connect_head(head, mqtt);
    break;
  case FM_PACKET_PUBACK:
    type = 0x40u;
    add_u16(head, mqtt->acks[0]);
    break;
  case FM_PACKET_SUBSCRIBE:
    type = 0x82u;
    subscribe_head(head, mqtt);
    break;
  case FM_PACKET_UNSUBSCRIBE:
    type = 0xA2u;
    add_u16(head, mqtt->unsubscribe_id);
    add_model_topic(head, mqtt, mqtt->former_version, mqtt->former_index);
    break;
  case FM_PACKET_FETCH:
    type = 0x82u;
    add_u16(head, mqtt->subscribe_id);
    add_model_topic(head, mqtt, mqtt->held_version, mqtt->held_index);
    add_u8(head, 0u);
    break;
  case FM_PACKET_PUBLISH:
    type = 0x30u | (mqtt->out_reliable ? 0x02u : 0u) | ((mqtt->out_reliable && mqtt->out_again) ? 0x08u : 0u);
    publish_head(head, mqtt);
    body = mqtt->out.body_size;
    break;
  default:
    break;
  }
  close_head(head, type, body);
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

/* Unsubscribe the chunk that came, subscribe the one asked for. Both topics are remembered until the broker confirmed
 * (and over connections, as its session does), so that none is left subscribed; one at a time is waited for. */
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

/* What to send next, most urgent first. Before the broker's CONNACK nothing but CONNECT. */
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
    /* nothing to say */
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

static uint32_t half(const fm_mqtt_t *mqtt) { return mqtt->config->buffer_size / 2u; }

/* Copy what fits of the packet's head into the buffer. True: all of it is there. */
static bool copy_head(fm_mqtt_t *mqtt) {
  head_t head;
  uint32_t end = 0u; /* of the piece in the head */
  make_head(&head, mqtt);
  for (uint32_t i = 0u; i < head.count; i++) {
    end += head.size[i];
    if (mqtt->packet_offset < end) {
      const uint32_t left = end - mqtt->packet_offset;
      const uint32_t room = half(mqtt) - mqtt->tx_fill;
      const uint32_t size = (left < room) ? left : room;
      (void)memcpy(&mqtt->config->buffer[mqtt->tx_fill], &head.piece[i][head.size[i] - left], size);
      mqtt->tx_fill += size;
      mqtt->packet_offset += size;
    }
  }
  return mqtt->packet_offset >= end;
}

/* Copy what fits of the publish's body. True: all of it is there. */
static bool copy_body(fm_mqtt_t *mqtt) {
  const uint32_t room = half(mqtt) - mqtt->tx_fill;
  const uint32_t left = mqtt->out.body_size - mqtt->out_offset;
  const uint32_t size = (left < room) ? left : room;
  bool complete = size == left;
  if (size != 0u) {
    if (mqtt->out.read(mqtt->out.user, mqtt->out_offset, &mqtt->config->buffer[mqtt->tx_fill], size) == FM_OK) {
      mqtt->out_offset += size;
      mqtt->tx_fill += size;
    } else {
      fm_mqtt_give_up(mqtt); /* it will not get better by sending it again */
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
        mqtt->last_in_ms = mqtt->now_ms; /* no PINGREQ fits into a packet: that it advances must do as a sign of life */
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
