/* SPDX-License-Identifier: Apache-2.0 */
/* MQTT 3.1.1 link (OASIS MQTT 3.1.1, 2014) over a byte stream. See docs/wire.md for the topics. */
#ifndef FM_MQTT_H
#define FM_MQTT_H

#include "fedmote/fm_config.h"
#include "fedmote/fm_link.h"

/* All pointers stay the caller's and must outlive the link. */
typedef struct {
  fm_stream_t stream;
  const char *federation; /* topic level; 1 to 32 bytes of [A-Za-z0-9_-] */
  const char *device_id;  /* also the client id; 1 to FM_MAX_DEVICE_ID bytes of [A-Za-z0-9_-] */
  const char *username;   /* NULL: none */
  const char *password;   /* NULL: none */
  const uint8_t *will;    /* payload of the will, published on the device's `up` topic at QoS 1; NULL: none */
  uint16_t will_size;
  uint16_t keep_alive_s;   /* 1 to 65535; a PINGREQ goes out after 3/4 of it without traffic, and the connection is
                              dropped when nothing at all came for 1.5 times it */
  uint32_t seed;           /* of the jitter */
  uint32_t backoff_min_ms; /* first wait before reconnecting; 0: 500 */
  uint32_t backoff_max_ms; /* longest; 0: 60000. The wait is uniform in [w/2, w], w doubling from min to max */
  uint8_t *buffer;         /* half for each direction; larger means fewer calls of the stream */
  uint32_t buffer_size;    /* at least FM_MQTT_MIN_BUFFER */
} fm_mqtt_config_t;
