/* SPDX-License-Identifier: Apache-2.0 */
/* MQTT 3.1.1 link (OASIS MQTT 3.1.1, 2014) over a byte stream. See docs/wire.md for the topics. */
#ifndef FM_MQTT_H
#define FM_MQTT_H

#include "fedmote/fm_config.h"
#include "fedmote/fm_link.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The caller owns everything that this struct points to; all of it must outlive the link. */
typedef struct {
  fm_stream_t stream;
  const char *federation; /* topic level; 1 to 32 bytes of [A-Za-z0-9_.-], not only dots. The client id is
                             <federation>.<device_id> */
  const char *device_id;  /* topic level; 1 to FM_MAX_DEVICE_ID bytes of the same */
  const char *username;   /* NULL: none; at most 65535 bytes */
  const char *password;   /* NULL: none; at most 65535 bytes; needs a username */
  const uint8_t *will;    /* payload of the will, published on the device's `up` topic at QoS 1; NULL: none */
  uint16_t will_size;
  uint16_t keep_alive_s; /* 1 to 65535; a PINGREQ is sent after 3/4 of it without traffic. The connection is closed when
                            nothing arrived and nothing could be sent for 1.5 times this number of seconds */
  uint32_t seed;         /* of the jitter */
  uint32_t backoff_min_ms; /* shortest wait before a reconnect; 0: 500 */
  uint32_t backoff_max_ms; /* longest; 0: 60000. The wait is uniform in [w/2, w], w doubling from min to max */
  uint8_t *buffer;         /* half for each direction; larger means fewer calls of the stream */
  uint32_t buffer_size;    /* at least FM_MQTT_MIN_BUFFER */
} fm_mqtt_config_t;

#define FM_MQTT_MIN_BUFFER 64u

/* How this link implements fm_link_api_t:
 * - send(): a message at FM_AT_LEAST_ONCE is repeated, with DUP and the same packet identifier, on every connection
 * until its PUBACK arrives. FM_ERR_BUFFER: the head is over 65,535 bytes or the body over 267,386,880.
 * - abort(): if part of the message is on the stream, the link closes the connection, since MQTT cannot take a packet
 *   back. The next poll connects again.
 * - poll(): reads and writes the stream at most 8 times each; its work is linear in half the buffer. */

/* One counter for each reason. The application may set any to 0. */
typedef struct {
  uint32_t bytes_in;
  uint32_t bytes_out;
  uint32_t packets_in;
  uint32_t connections; /* CONNACK accepted */
  uint32_t failures;    /* opening, handshake or connection failed, for any reason */
  uint32_t refused;     /* refusals in a CONNACK or SUBACK */
  uint32_t malformed;   /* packets that MQTT 3.1.1 does not allow; each costs the connection */
  uint32_t silent;      /* connections closed because nothing arrived */
  uint32_t resent;      /* publishes sent again with DUP */
  uint32_t pings;
  uint8_t last_return_code; /* of the last CONNACK */
  bool session_present;     /* of the last CONNACK */
} fm_mqtt_counters_t;

/* One link. Public so that its size is known; read the counters, touch nothing else. What the code touches most comes
 * first: Thumb's short instructions reach 32 bytes, or 32 words, from the start of a struct. */
typedef struct {
  uint8_t phase;
  uint8_t packet; /* being sent */
  uint8_t out_state;
  uint8_t due; /* packets to send, one bit each */
  uint8_t ack_count;
  uint8_t rx_stage;
  uint8_t rx_header;
  uint8_t rx_shift;
  uint8_t rx_first; /* first byte of a short packet's variable header */
  bool out_reliable;
  bool out_again; /* to be sent with DUP */
  bool refused;
  bool holds;        /* held_* is subscribed, or may be */
  bool releases;     /* former_* was not yet confirmed as unsubscribed */
  uint16_t rx_topic; /* length of a PUBLISH's topic */
  uint16_t rx_id;
  uint16_t next_id;
  uint16_t out_id;
  uint16_t subscribe_id;
  uint16_t unsubscribe_id;
  const fm_mqtt_config_t *config;
  const fm_sink_t *sink; /* during poll */
  uint32_t now_ms;
  uint32_t phase_at_ms; /* when the present phase began */
  uint32_t wait_ms;     /* phase closed: time until the next attempt to open */
  uint32_t last_in_ms;
  uint32_t last_out_ms;
  uint32_t rx_fill;      /* bytes read into the buffer */
  uint32_t rx_at;        /* of which were acted on */
  uint32_t rx_remaining; /* bytes of the packet still to come */
  uint32_t rx_have;      /* bytes of its variable header so far */
  uint32_t rx_level[2];  /* the last two levels of a PUBLISH's topic, read as numbers */
  uint32_t tx_fill;
  uint32_t tx_sent;
  uint32_t packet_offset; /* bytes written of the head of the packet being sent */
  uint32_t out_offset;    /* bytes of the message's body written */
  uint32_t held_version;  /* subscribed */
  uint32_t held_index;
  uint32_t fetch_version; /* asked for */
  uint32_t fetch_index;
  uint32_t former_version; /* being unsubscribed */
  uint32_t former_index;
  fm_outgoing_t out;
  uint32_t random;
  uint32_t backoff_ms;
  uint32_t connection; /* number of the last connection that came up */
  uint16_t acks[FM_MQTT_PENDING_ACKS];
  fm_mqtt_counters_t counters;
} fm_mqtt_t;

/* Check the config and fill in *link for the client. Keeps the pointer to `config`. The link starts to connect in its
 * first poll. FM_ERR_ARGUMENT: a field is missing or out of range. FM_ERR_BUFFER: buffer_size is under
 * FM_MQTT_MIN_BUFFER. */
fm_status_t fm_mqtt_init(fm_mqtt_t *mqtt, const fm_mqtt_config_t *config, fm_link_t *link);

/* Send DISCONNECT, so that the broker publishes no will, and close. DISCONNECT is left out when the stream does not
 * accept it at once or a packet is half written; so wait until sending() is false. A message at FM_AT_LEAST_ONCE is
 * kept for the next connection. The next poll connects again. */
void fm_mqtt_close(fm_mqtt_t *mqtt);

#ifdef __cplusplus
}
#endif

#endif
