/* SPDX-License-Identifier: Apache-2.0 */
#include "app_link.h"

#include <string.h>

#include "fedmote/fm_codec.h"

#define KEEP_ALIVE_S 60u
#define UNKNOWN_BATTERY 255u

/* Write the message that the broker publishes when the device is lost. */
static fm_status_t write_will(app_link_t *app_link) {
  fm_message_t away;
  uint32_t size = 0u;
  fm_status_t status;
  (void)memset(&away, 0, sizeof away);
  away.type = FM_BODY_DEVICE_STATE;
  away.body.device_state.online = false;
  away.body.device_state.battery = UNKNOWN_BATTERY;
  status = fm_message_encode(&away, app_link->will, sizeof app_link->will, &size);
  app_link->config.will = app_link->will;
  app_link->config.will_size = (uint16_t)size;
  return status;
}

fm_status_t app_link_init(app_link_t *app_link, const app_link_settings_t *settings, const fm_stream_t *stream,
                          const char *device_id, uint32_t seed, fm_link_t *link) {
  fm_mqtt_config_t *config = &app_link->config;
  const fm_status_t status = write_will(app_link);
  config->stream = *stream;
  config->federation = settings->federation;
  config->device_id = device_id;
  config->username = settings->username;
  config->password = settings->password;
  config->keep_alive_s = KEEP_ALIVE_S;
  config->seed = seed;
  config->buffer = app_link->packets;
  config->buffer_size = sizeof app_link->packets;
  return (status == FM_OK) ? fm_mqtt_init(&app_link->mqtt, config, link) : status;
}
