/* SPDX-License-Identifier: Apache-2.0 */
#include "app_link.h"

#define FRAMES_BITS (10u * FM_SERIAL_TX_BUFFER * FM_SERIAL_WINDOW) /* a full window, with start and stop bits */

fm_status_t app_link_init(app_link_t *app_link, const app_link_settings_t *settings, const fm_stream_t *stream,
                          const char *device_id, uint32_t seed, fm_link_t *link) {
  fm_serial_config_t *config = &app_link->config;
  (void)device_id; /* the client's Hello says it */
  config->stream = *stream;
  config->seed = seed;
  config->retransmit_ms = 50u + ((FRAMES_BITS * 1000u) / settings->baud);
  config->buffer = app_link->frames;
  config->buffer_size = sizeof app_link->frames;
  return fm_serial_init(&app_link->serial, config, link);
}
