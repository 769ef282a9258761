/* SPDX-License-Identifier: Apache-2.0 */
#include "sansio.h"

#include <stddef.h>

#define LONGEST_WAIT_MS 60000u
#define STEP 1024u /* bytes that a link may see before its messages are taken: bounds what the inbox must hold */

uint32_t fmb_sansio_poll(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, uint32_t now_ms) {
  const fm_sink_t sink = fmb_inbox_sink(&self->inbox);
  uint32_t before;
  self->pipe.in = bytes;
  self->pipe.in_left = size;
  do {
    before = self->pipe.in_left;
    self->wait_ms = LONGEST_WAIT_MS;
    self->pipe.budget = STEP;
    self->status = self->link.api->poll(self->link.self, now_ms, &sink, &self->wait_ms);
  } while ((self->inbox.messages == 0u) && (self->pipe.in_left > 0u) && (self->pipe.in_left < before));
  self->pipe.in = NULL;
  before = self->pipe.in_left;
  self->pipe.in_left = 0u;
  return size - before;
}

void fmb_sansio_clear(fmb_sansio_t *self) { fmb_inbox_clear(&self->inbox); }

int fmb_sansio_send(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, bool reliable) {
  const fm_outgoing_t message = {bytes, size, 0u, NULL, NULL};
  return (int)self->link.api->send(self->link.self, &message, reliable ? FM_AT_LEAST_ONCE : FM_AT_MOST_ONCE);
}

bool fmb_sansio_sending(const fmb_sansio_t *self) { return self->link.api->sending(self->link.self); }

uint32_t fmb_sansio_connection(const fmb_sansio_t *self) { return self->link.api->connection(self->link.self); }

int fmb_sansio_fetch(fmb_sansio_t *self, uint32_t version, uint32_t index) {
  return (self->link.api->fetch == NULL) ? (int)FM_ERR_UNSUPPORTED
                                         : (int)self->link.api->fetch(self->link.self, version, index);
}

int fmb_mqtt_init(fmb_mqtt_link_t *self) {
  self->config.stream = fmb_pipe_stream(&self->sansio.pipe);
  return (int)fm_mqtt_init(&self->mqtt, &self->config, &self->sansio.link);
}

int fmb_serial_init(fmb_serial_link_t *self) {
  self->config.stream = fmb_pipe_stream(&self->sansio.pipe);
  self->config.buffer = self->buffer;
  self->config.buffer_size = sizeof self->buffer;
  return (int)fm_serial_init(&self->serial, &self->config, &self->sansio.link);
}
