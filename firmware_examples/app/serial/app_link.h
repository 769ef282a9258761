/* SPDX-License-Identifier: Apache-2.0 */
/* The application's link, a serial line. */
#ifndef APP_LINK_H
#define APP_LINK_H

#include "fedmote/fm_serial.h"

typedef struct {
  uint32_t baud;
} app_link_settings_t;

typedef struct {
  fm_serial_t serial;
  fm_serial_config_t config;
  uint8_t frames[FM_SERIAL_MIN_BUFFER];
} app_link_t;

/* Make the link on a stream. `seed`: new at each start. Returns what the library's init function returns. */
fm_status_t app_link_init(app_link_t *app_link, const app_link_settings_t *settings, const fm_stream_t *stream,
                          const char *device_id, uint32_t seed, fm_link_t *link);

#endif
