/* SPDX-License-Identifier: Apache-2.0 */
/* The application's link, MQTT. */
#ifndef APP_LINK_H
#define APP_LINK_H

#include "fedmote/fm_mqtt.h"

#define APP_PACKET 512u /* bytes written to the stream at once: a TCP segment, and with TLS a record */
#define APP_WILL 64u

typedef struct {
  const char *federation;
  const char *username; /* NULL: none */
  const char *password; /* NULL: none */
} app_link_settings_t;

typedef struct {
  fm_mqtt_t mqtt;
  fm_mqtt_config_t config;
  uint8_t packets[2u * APP_PACKET];
  uint8_t will[APP_WILL];
} app_link_t;

/* Make the link on a stream to the broker, TCP or TLS. `seed`: new at each start. Returns what the library's init
 * function returns. */
fm_status_t app_link_init(app_link_t *app_link, const app_link_settings_t *settings, const fm_stream_t *stream,
                          const char *device_id, uint32_t seed, fm_link_t *link);

#endif
