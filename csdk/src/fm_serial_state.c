/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: how one begins, comes up and ends. */
#include <stddef.h>
#include <string.h>

#include "fm_serial_internal.h"

#define DEFAULT_EXPIRY_MS 500u

/* A linear congruential generator. The time is mixed in so that two ends with the same seed do not draw the same tags
 * forever. */
void fm_serial_new_tag(fm_serial_t *serial) {
  serial->random = (serial->random + serial->now_ms + 1u) * 1664525u;
  serial->tag = (serial->random >> 16) | 1u;
}

/* The sink is set only during a poll. A break outside of it is reported by the next one. */
void fm_serial_drop_incoming(fm_serial_t *serial) {
  if ((serial->in_busy != 0u) && (serial->sink != NULL)) {
    serial->in_busy = 0u;
    serial->sink->end(serial->sink->user, false);
  }
}

/* The connection, if there is one, has ended. */
void fm_serial_start_over(fm_serial_t *serial, uint32_t phase) {
  serial->counters.lost += (serial->phase >= FM_SERIAL_PHASE_UP) ? 1u : 0u;
  fm_serial_drop_incoming(serial);
  if ((serial->out_state == FM_SERIAL_OUT_CANCEL) || (serial->out_survives == 0u)) {
    serial->out_state = FM_SERIAL_OUT_NONE;
  }
  (void)memset(&serial->on, 0, sizeof serial->on);
  serial->expiry_ms = (serial->config->retransmit_ms != 0u) ? serial->config->retransmit_ms : DEFAULT_EXPIRY_MS;
  serial->phase = phase;
  serial->since_ms = serial->now_ms;
  serial->backoff_ms = FM_SERIAL_GREET_MS;
  serial->due = FM_SERIAL_DUE_FRAME;
  fm_serial_new_tag(serial);
}

void fm_serial_come_up(fm_serial_t *serial) {
  serial->phase = FM_SERIAL_PHASE_UP;
  serial->due = FM_SERIAL_DUE_FRAME;
  serial->connection++;
  serial->connection += (serial->connection == 0u) ? 1u : 0u;
  serial->counters.connections++;
  serial->segment = serial->most;
  serial->last_in_ms = serial->now_ms;
}

void fm_serial_break_stream(fm_serial_t *serial) {
  serial->config->stream.api->close(serial->config->stream.self);
  serial->rx.count = 0u;
  serial->rx.left = 0u;
  serial->tx_size = 0u;
  serial->tx_sent = 0u;
  fm_serial_start_over(serial, FM_SERIAL_PHASE_CLOSED);
}
