/* SPDX-License-Identifier: Apache-2.0 */
/* The serial link. A message is sent as one run of bytes, its length first, cut into segments; each byte has a sequence
 * number modulo 2^16 within its connection. The receiver accepts segments only in order. When it reports a gap, or no
 * acknowledgement arrives in time, the sender goes back to the first byte that is not acknowledged. The procedure is in
 * docs/wire.md. */
#include <stddef.h>
#include <string.h>

#include "fm_bits.h"
#include "fm_serial_internal.h"

#define LONGEST_GREET_MS 4000u
#define LONGEST_DOUBLED_MS 2000u /* by doubling alone, since noise also causes timeouts */
#define DEFAULT_KEEP_ALIVE_MS 5000u
#define LONGEST_KEEP_ALIVE_MS 0x10000000u
#define RETRY_MS 10u /* wait while the stream opens, or while it accepts nothing */
#define ROUNDS_A_POLL 8u

/* ---- time ---- */

/* A peer silent for this long is probed; after four times as long it counts as gone. */
static uint32_t silence_ms(const fm_serial_t *serial) {
  const uint32_t limit = serial->config->keep_alive_ms;
  return (limit != 0u) ? limit : DEFAULT_KEEP_ALIVE_MS;
}

/* Milliseconds to the next timed action: open, greet, retransmit or probe. */
static uint32_t action_due_in(const fm_serial_t *serial) {
  uint32_t limit = serial->backoff_ms;
  if (serial->phase >= FM_SERIAL_PHASE_UP) {
    limit = fm_serial_outstanding(serial) ? fm_serial_expiry(serial) : silence_ms(serial);
  }
  return fm_serial_left_of(serial, serial->since_ms, limit);
}

/* Milliseconds until a silent peer counts as gone. */
static uint32_t lost_in(const fm_serial_t *serial) {
  return (serial->phase >= FM_SERIAL_PHASE_UP) ? fm_serial_left_of(serial, serial->last_in_ms, 4u * silence_ms(serial))
                                               : LONGEST_GREET_MS;
}

/* Do what is due by time while the stream is open. */
static void expire(fm_serial_t *serial) {
  if (lost_in(serial) == 0u) {
    fm_serial_start_over(serial, FM_SERIAL_PHASE_GREETING);
  } else if (action_due_in(serial) == 0u) {
    if (serial->phase == FM_SERIAL_PHASE_GREETING) {
      serial->backoff_ms = fm_smaller(2u * serial->backoff_ms, LONGEST_GREET_MS);
      serial->due = FM_SERIAL_DUE_FRAME;
      if (serial->on.peer_tag == 0u) {
        fm_serial_new_tag(serial); /* the peer may have the same tag and take this greeting for its own echo */
      }
    } else if (fm_serial_outstanding(serial)) {
      serial->on.doubled_ms = fm_serial_expiry(serial);
      if (serial->on.doubled_ms < LONGEST_DOUBLED_MS) {
        serial->on.doubled_ms = fm_smaller(2u * serial->on.doubled_ms, LONGEST_DOUBLED_MS);
      }
      fm_serial_go_back(serial);
    } else {
      serial->due |= FM_SERIAL_FLAG_PROBE;
    }
    serial->since_ms = serial->now_ms;
  } else {
    /* it is not time yet */
  }
}

/* ---- the link ---- */

static void open_line(fm_serial_t *serial) {
  const fm_status_t status = serial->config->stream.api->open(serial->config->stream.self);
  if (status == FM_OK) {
    fm_serial_start_over(serial, FM_SERIAL_PHASE_GREETING);
  } else if (status == FM_AGAIN) {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = RETRY_MS;
  } else {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = fm_smaller(FM_SERIAL_GREET_MS + (2u * serial->backoff_ms), LONGEST_GREET_MS);
  }
}

/* Return the milliseconds until there is something to do. */
static uint32_t next_wait(const fm_serial_t *serial) {
  uint32_t wait = fm_smaller(action_due_in(serial), lost_in(serial));
  if (serial->tx_sent != serial->tx_size) {
    wait = fm_smaller(wait, RETRY_MS); /* or call when the stream can be written */
  }
  return wait;
}

/* Work on an open stream. True: there is more to do than one poll does. */
static bool work(fm_serial_t *serial) {
  uint32_t reads = ROUNDS_A_POLL;
  uint32_t writes = ROUNDS_A_POLL;
  while ((reads != 0u) && fm_serial_receive(serial)) {
    reads--;
  }
  if (reads != 0u) {
    expire(serial); /* only after all received bytes were read; a stream that just broke needs no timer */
  }
  while ((serial->phase != FM_SERIAL_PHASE_CLOSED) && (writes != 0u) && fm_serial_transmit(serial)) {
    writes--;
  }
  return (reads == 0u) || (writes == 0u);
}

static fm_status_t serial_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fm_serial_t *serial = (fm_serial_t *)self;
  bool more = false;
  serial->now_ms = now_ms;
  serial->sink = sink;
  if (serial->phase == FM_SERIAL_PHASE_CLOSED) {
    fm_serial_drop_incoming(serial);
    if (action_due_in(serial) == 0u) {
      open_line(serial);
    }
  }
  if (serial->phase != FM_SERIAL_PHASE_CLOSED) {
    more = work(serial);
  }
  *wait_ms = more ? 0u : fm_smaller(*wait_ms, next_wait(serial));
  serial->sink = NULL;
  return FM_OK;
}

static uint32_t serial_connection(const void *self) {
  const fm_serial_t *serial = (const fm_serial_t *)self;
  return (serial->phase >= FM_SERIAL_PHASE_UP) ? serial->connection : 0u;
}

static fm_status_t serial_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  fm_serial_t *serial = (fm_serial_t *)self;
  fm_status_t status = FM_AGAIN;
  if ((message->head_size > FM_SERIAL_MAX_MESSAGE) ||
      (message->body_size > (FM_SERIAL_MAX_MESSAGE - message->head_size))) {
    status = FM_ERR_BUFFER;
  } else if ((serial->phase >= FM_SERIAL_PHASE_UP) && (serial->out_state == FM_SERIAL_OUT_NONE)) {
    serial->out = *message;
    serial->out_end = FM_SERIAL_PREFIX + message->head_size + message->body_size;
    serial->out_survives = (delivery == FM_AT_LEAST_ONCE) ? 1u : 0u;
    serial->out_state = FM_SERIAL_OUT_MESSAGE;
    status = FM_OK;
  } else {
    /* not now */
  }
  return status;
}

static bool serial_sending(const void *self) { return ((const fm_serial_t *)self)->out_state == FM_SERIAL_OUT_MESSAGE; }

static void serial_abort(void *self) { fm_serial_give_up((fm_serial_t *)self); }

static bool line_valid(const fm_stream_api_t *api) {
  return (api != NULL) && (api->open != NULL) && (api->read != NULL) && (api->write != NULL) && (api->close != NULL);
}

fm_status_t fm_serial_init(fm_serial_t *serial, const fm_serial_config_t *config, fm_link_t *link) {
  static const fm_link_api_t api = {serial_poll, serial_connection, serial_send, serial_sending, serial_abort, NULL};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((serial == NULL) || (config == NULL) || (link == NULL)) {
    /* a bug in the caller */
  } else if (!line_valid(config->stream.api) || (config->buffer == NULL) ||
             (config->retransmit_ms > FM_SERIAL_LONGEST_EXPIRY_MS) || (config->keep_alive_ms > LONGEST_KEEP_ALIVE_MS)) {
    /* the same */
  } else if (config->buffer_size < FM_SERIAL_MIN_BUFFER) {
    status = FM_ERR_BUFFER;
  } else {
    (void)memset(serial, 0, sizeof *serial);
    serial->config = config;
    serial->random = config->seed;
    link->api = &api;
    link->self = serial;
    status = FM_OK;
  }
  return status;
}

void fm_serial_close(fm_serial_t *serial) {
  if (serial->phase != FM_SERIAL_PHASE_CLOSED) {
    fm_serial_start_over(serial, FM_SERIAL_PHASE_GREETING); /* its greeting ends the connection at the peer, too */
    serial->tx_sent = serial->tx_size; /* the zero before the frame cuts off what is half written */
    (void)fm_serial_transmit(serial);
    fm_serial_break_stream(serial);
  }
  serial->backoff_ms = 0u;
}
