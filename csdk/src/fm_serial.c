/* SPDX-License-Identifier: Apache-2.0 */
/* The serial link. A message is sent as one run of bytes, its length first, cut into segments; each byte has a sequence
 * number modulo 2^16 within its connection. The receiver takes segments in order only; the sender goes back to what was
 * not acknowledged when told of a gap or when time runs out. The procedure is in docs/wire.md. */
#include "fedmote/fm_serial.h"

#include <stddef.h>
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_cobs.h"

#define VERSION 1u
#define PREFIX 4u /* bytes of a message's length before it */
#define HEADER 7u
#define CRC 4u
#define LEAST_PAYLOAD 16u
#define MOST_PAYLOAD 240u
#define PAYLOAD_STEP 8u /* a segment grows by this when acknowledged; it is halved when lost */
#define AHEAD 0x8000u   /* sequence numbers closer than this are of the future, others of the past */

#define GREET_MS 250u /* first wait for an answer, or before opening again; doubles up to */
#define LONGEST_GREET_MS 4000u
#define DEFAULT_EXPIRY_MS 500u
#define LONGEST_EXPIRY_MS 8000u  /* as measured */
#define LONGEST_DOUBLED_MS 2000u /* by doubling alone: noise, too, makes time run out */
#define EXPIRY_MARGIN_MS 30u
#define MOST_DOUBLINGS 4u
#define DEFAULT_KEEP_ALIVE_MS 5000u
#define LONGEST_KEEP_ALIVE_MS 0x10000000u
#define RETRY_MS 10u /* opening, or a stream that takes nothing */
#define ROUNDS_A_POLL 8u
#define READ_SIZE 32u

/* fm_serial_t.phase; the peer is HEARD when it is known to have come up too */
enum { PHASE_CLOSED = 0, PHASE_GREETING, PHASE_UP, PHASE_HEARD };

/* fm_serial_t.out_state */
enum { OUT_NONE = 0, OUT_MESSAGE, OUT_CANCEL };

/* The first byte of a frame: kind, flags, the sender's epoch, the epoch of the receiver's last segment. */
#define KIND_GREET 0u
#define KIND_ACK 1u
#define KIND_DATA 2u
#define KIND_CANCEL 3u
#define KIND_MASK 0x03u
#define FLAG_GAP 0x04u
#define FLAG_PROBE 0x08u
#define EPOCH_SHIFT 4u
#define ECHO_SHIFT 6u
#define EPOCH_MASK 3u

/* fm_serial_t.due, with the two flags as themselves */
#define DUE_GREET 0x01u
#define DUE_ACK 0x02u

static uint32_t least(uint32_t a, uint32_t b) { return (a < b) ? a : b; }

static uint32_t get16(const uint8_t *bytes) { return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8); }

static uint32_t get32(const uint8_t *bytes) { return get16(bytes) | (get16(&bytes[2]) << 16); }

static void put16(uint8_t *out, uint32_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
}

/* What is left of `limit` milliseconds since `then_ms`; 0: nothing. */
static uint32_t left(const fm_serial_t *serial, uint32_t then_ms, uint32_t limit) {
  const uint32_t gone = serial->now_ms - then_ms;
  return (gone < limit) ? (limit - gone) : 0u;
}

/* ---- connections ---- */

/* The time takes part so that two ends with the same seed do not choose the same for ever. */
static void new_tag(fm_serial_t *serial) {
  serial->random = (serial->random * 1664525u) + 1013904223u + serial->now_ms; /* Numerical Recipes' LCG */
  serial->tag = (uint16_t)((serial->random >> 16) | 1u);
}

/* There is a sink during poll only: what breaks outside is told by the next one. */
static void forget_incoming(fm_serial_t *serial) {
  if (serial->in_busy && (serial->sink != NULL)) {
    serial->in_busy = false;
    serial->sink->end(serial->sink->user, false);
  }
}

/* The connection, if there is one, has ended. */
static void enter(fm_serial_t *serial, uint8_t phase) {
  serial->counters.lost += (serial->phase >= (uint8_t)PHASE_UP) ? 1u : 0u;
  forget_incoming(serial);
  if ((serial->out_state == (uint8_t)OUT_CANCEL) || !serial->out_survives) {
    serial->out_state = (uint8_t)OUT_NONE;
  }
  (void)memset(&serial->on, 0, sizeof serial->on);
  serial->expiry_ms =
      (serial->config->retransmit_ms != 0u) ? (uint16_t)serial->config->retransmit_ms : (uint16_t)DEFAULT_EXPIRY_MS;
  serial->phase = phase;
  serial->since_ms = serial->now_ms;
  serial->backoff_ms = (uint16_t)GREET_MS;
  serial->due = (uint8_t)DUE_GREET;
  new_tag(serial);
}

static void come_up(fm_serial_t *serial, uint8_t phase) {
  serial->phase = phase;
  serial->connection++;
  serial->connection += (serial->connection == 0u) ? 1u : 0u;
  serial->counters.connections++;
  serial->segment = serial->most;
  serial->last_in_ms = serial->now_ms;
}

static void break_stream(fm_serial_t *serial) {
  serial->config->stream.api->close(serial->config->stream.self);
  (void)memset(&serial->rx, 0, sizeof serial->rx);
  serial->tx_size = 0u;
  serial->tx_sent = 0u;
  enter(serial, (uint8_t)PHASE_CLOSED);
}

/* ---- sending ---- */

static bool outstanding(const fm_serial_t *serial) { return serial->on.high != serial->on.acked; }

/* What was sent of the message is behind us, whether the peer took it or not. */
static void next_base(fm_serial_t *serial) {
  serial->on.base = (uint16_t)(serial->on.base + serial->on.high);
  serial->on.acked = 0u;
  serial->on.next = 0u;
  serial->on.high = 0u;
  serial->on.timed = 0u;
}

/* Forget the message under way. Where the peer may have some of it, a last segment says so. */
static void give_up(fm_serial_t *serial) {
  if (serial->out_state == (uint8_t)OUT_MESSAGE) {
    serial->out_state = (serial->on.high != 0u) ? (uint8_t)OUT_CANCEL : (uint8_t)OUT_NONE;
    serial->out_end = 1u; /* its sequence number */
    next_base(serial);
  }
}

static void go_back(fm_serial_t *serial) {
  serial->counters.retransmits++;
  serial->on.next = serial->on.acked;
  serial->on.timed = 0u; /* measured anew: which sending an acknowledgement is of, its epoch tells */
  serial->on.epoch = (uint8_t)((serial->on.epoch + 1u) & EPOCH_MASK);
  if (serial->segment >= (2u * LEAST_PAYLOAD)) {
    serial->segment /= 2u;
  }
}

/* Copy `size` bytes of the message with its length in front, from `offset`. */
static fm_status_t gather(const fm_serial_t *serial, uint32_t offset, uint8_t *out, uint32_t size) {
  const uint32_t total = serial->out_end - PREFIX;
  const uint32_t body_at = PREFIX + serial->out.head_size;
  fm_status_t status = FM_OK;
  uint32_t at = offset;
  const uint32_t end = offset + size;
  while ((at < end) && (at < body_at)) {
    out[at - offset] = (uint8_t)((at < PREFIX) ? (total >> (8u * at)) : (uint32_t)serial->out.head[at - PREFIX]);
    at++;
  }
  if (at < end) {
    status = serial->out.read(serial->out.user, at - body_at, &out[at - offset], end - at);
  }
  return status;
}

static uint8_t *frame_of(const fm_serial_t *serial) { return &serial->config->buffer[FM_SERIAL_RX_BUFFER]; }

/* Finish the frame whose payload is in place. A zero before it ends whatever the line made up while it was idle. */
static void put_frame(fm_serial_t *serial, uint32_t control, uint32_t second, uint32_t third, uint32_t size) {
  uint8_t *frame = frame_of(serial);
  uint8_t *header = &frame[2];
  uint32_t crc;
  frame[0] = 0u;
  header[0] = (uint8_t)control;
  put16(&header[1], serial->on.peer_tag);
  put16(&header[3], second);
  put16(&header[5], third);
  crc = fm_crc32(0u, header, HEADER + size);
  put16(&header[HEADER + size], crc);
  put16(&header[HEADER + size + 2u], crc >> 16);
  fm_cobs_encode(&frame[1], HEADER + size + CRC);
  serial->tx_size = (uint16_t)(HEADER + size + CRC + 3u);
  serial->tx_sent = 0u;
  serial->due = 0u;
  serial->counters.frames_out++;
}

/* Until something is acknowledged after a timeout there is one segment on the line, so that a slow one is not filled
 * with copies. */
static bool may_send(const fm_serial_t *serial) {
  const uint32_t window = (serial->on.doublings != 0u) ? 0u : ((FM_SERIAL_WINDOW - 1u) * serial->segment);
  return (serial->out_state != (uint8_t)OUT_NONE) && (serial->on.next < serial->out_end) &&
         ((serial->on.next - serial->on.acked) <= window);
}

static uint32_t segment_size(const fm_serial_t *serial) {
  return least(serial->segment, serial->out_end - serial->on.next);
}

static void put_segment(fm_serial_t *serial, uint32_t flags) {
  const uint32_t size = segment_size(serial);
  const uint32_t at = serial->on.next;
  const bool cancel = serial->out_state == (uint8_t)OUT_CANCEL;
  put_frame(serial, flags | (cancel ? KIND_CANCEL : KIND_DATA), serial->on.in_next, serial->on.base + at,
            cancel ? 0u : size);
  serial->on.next += size;
  serial->since_ms = serial->now_ms;
  if (serial->on.timed == 0u) {
    serial->on.timed = serial->on.next;
    serial->on.timed_ms = serial->now_ms;
  }
  if (serial->on.next > serial->on.high) {
    serial->on.high = serial->on.next;
  }
}

/* The next frame, if there is one to send. Every frame acknowledges. */
static void choose_frame(fm_serial_t *serial) {
  const uint32_t flags = ((uint32_t)serial->due & (FLAG_GAP | FLAG_PROBE)) |
                         ((uint32_t)serial->on.epoch << EPOCH_SHIFT) | ((uint32_t)serial->on.in_epoch << ECHO_SHIFT);
  if (serial->phase == (uint8_t)PHASE_GREETING) {
    if (serial->due != 0u) {
      put_frame(serial, KIND_GREET, VERSION | ((uint32_t)FM_SERIAL_PAYLOAD << 8), serial->tag, 0u);
    }
  } else {
    if (may_send(serial) && (serial->out_state == (uint8_t)OUT_MESSAGE) &&
        (gather(serial, serial->on.next, &frame_of(serial)[2u + HEADER], segment_size(serial)) != FM_OK)) {
      give_up(serial); /* it will not get better by reading it again */
    }
    if (may_send(serial)) {
      put_segment(serial, flags);
    } else if (serial->due != 0u) {
      put_frame(serial, flags | KIND_ACK, serial->on.in_next, serial->on.base + serial->on.next, 0u);
    } else {
      /* nothing to say */
    }
  }
}

/* Write what there is to write, once. True: bytes moved. */
static bool transmit(fm_serial_t *serial) {
  const fm_stream_t *stream = &serial->config->stream;
  bool moved = false;
  if (serial->tx_sent == serial->tx_size) {
    choose_frame(serial);
  }
  if (serial->tx_sent != serial->tx_size) {
    const int32_t sent = stream->api->write(stream->self, &frame_of(serial)[serial->tx_sent],
                                            (uint32_t)serial->tx_size - serial->tx_sent);
    if (sent < 0) {
      break_stream(serial);
    } else {
      serial->tx_sent = (uint16_t)(serial->tx_sent + (uint32_t)sent);
      serial->counters.bytes_out += (uint32_t)sent;
      moved = sent != 0;
    }
  }
  return moved;
}

/* ---- time ---- */

/* Milliseconds from since_ms to the next thing to do. */
static uint32_t patience(const fm_serial_t *serial) {
  uint32_t limit = serial->backoff_ms;
  if (serial->phase >= (uint8_t)PHASE_UP) {
    limit = (serial->config->keep_alive_ms != 0u) ? serial->config->keep_alive_ms : DEFAULT_KEEP_ALIVE_MS;
    if (outstanding(serial)) {
      limit = least((uint32_t)serial->expiry_ms << serial->on.doublings, LONGEST_DOUBLED_MS);
      limit = (limit < serial->expiry_ms) ? serial->expiry_ms : limit;
    }
  }
  return limit;
}

/* What is left until silence means that the peer is gone. */
static uint32_t hope(const fm_serial_t *serial) {
  const uint32_t limit = (serial->config->keep_alive_ms != 0u) ? serial->config->keep_alive_ms : DEFAULT_KEEP_ALIVE_MS;
  return left(serial, serial->last_in_ms, 4u * limit);
}

/* Do what time brings while the stream is open. */
static void expire(fm_serial_t *serial) {
  if ((serial->phase >= (uint8_t)PHASE_UP) && (hope(serial) == 0u)) {
    enter(serial, (uint8_t)PHASE_GREETING);
  } else if (left(serial, serial->since_ms, patience(serial)) == 0u) {
    if (serial->phase == (uint8_t)PHASE_GREETING) {
      serial->backoff_ms = (uint16_t)least(2u * (uint32_t)serial->backoff_ms, LONGEST_GREET_MS);
      serial->due = (uint8_t)DUE_GREET;
      if (serial->on.peer_tag == 0u) {
        new_tag(serial); /* the peer may have the same, and takes this end's greeting for its echo */
      }
    } else if (outstanding(serial)) {
      serial->on.doublings = (uint8_t)least((uint32_t)serial->on.doublings + 1u, MOST_DOUBLINGS);
      go_back(serial);
    } else {
      serial->due |= FLAG_PROBE;
    }
    serial->since_ms = serial->now_ms;
  } else {
    /* it is not time yet */
  }
}

/* ---- receiving ---- */

static void measured(fm_serial_t *serial) {
  const uint32_t took = least(serial->now_ms - serial->on.timed_ms, LONGEST_EXPIRY_MS / 2u);
  const uint32_t target = least((2u * took) + EXPIRY_MARGIN_MS, LONGEST_EXPIRY_MS);
  serial->on.timed = 0u;
  serial->expiry_ms = (uint16_t)((target > serial->expiry_ms) ? target : ((target + (uint32_t)serial->expiry_ms) / 2u));
}

/* `fresh`: of what was sent since the last go-back. An older one came after time had run out: too early, then. That
 * time ran out alone says little, since noise does that too. */
static void on_progress(fm_serial_t *serial, uint32_t size, bool fresh) {
  if (!fresh) {
    serial->expiry_ms = (uint16_t)patience(serial);
    serial->on.timed = 0u;
  }
  serial->on.doublings = 0u;
  serial->on.acked += size;
  serial->since_ms = serial->now_ms;
  serial->segment = (uint8_t)least((uint32_t)serial->segment + PAYLOAD_STEP, serial->most);
  if (serial->on.next < serial->on.acked) {
    serial->on.next = serial->on.acked;
  }
  if ((serial->on.timed != 0u) && (serial->on.acked >= serial->on.timed)) {
    measured(serial);
  }
  if (serial->on.acked == serial->out_end) {
    serial->out_state = (uint8_t)OUT_NONE;
    next_base(serial);
  }
}

/* Of what is older than the last acknowledgement, or was never sent, nothing is taken. */
static void on_ack(fm_serial_t *serial, uint32_t control, uint32_t ack) {
  const uint32_t size = (ack - serial->on.base - serial->on.acked) & 0xFFFFu;
  const bool fresh = (control >> ECHO_SHIFT) == serial->on.epoch;
  if (outstanding(serial) && (size != 0u) && (size <= (serial->on.high - serial->on.acked))) {
    on_progress(serial, size, fresh);
  }
  if (((control & FLAG_GAP) != 0u) && outstanding(serial) && fresh) {
    go_back(serial); /* once: what comes of the segments before it has another epoch */
  }
}

/* The next bytes of the run of messages. */
static void deliver(fm_serial_t *serial, const uint8_t *bytes, uint32_t size) {
  uint32_t at = 0u;
  bool valid = size != 0u;
  if (valid && !serial->in_busy) {
    at = PREFIX;
    valid = size >= PREFIX;
    if (valid) {
      serial->in_left = get32(bytes);
      serial->in_busy = true;
      serial->sink->begin(serial->sink->user, serial->in_left);
    }
  }
  if (!valid || ((size - at) > serial->in_left)) {
    serial->counters.malformed++; /* the two ends no longer agree where messages begin */
    enter(serial, (uint8_t)PHASE_GREETING);
  } else {
    if (size != at) {
      serial->in_left -= size - at;
      serial->sink->data(serial->sink->user, &bytes[at], size - at);
    }
    if (serial->in_left == 0u) {
      serial->in_busy = false;
      serial->sink->end(serial->sink->user, true);
    }
  }
}

static void on_segment(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  const uint32_t sequence = get16(&frame[5]);
  const uint32_t ahead = (sequence - serial->on.in_next) & 0xFFFFu;
  const bool cancel = (frame[0] & KIND_MASK) == KIND_CANCEL;
  serial->on.in_epoch = (uint8_t)(((uint32_t)frame[0] >> EPOCH_SHIFT) & EPOCH_MASK);
  serial->due |= DUE_ACK;
  if (ahead >= AHEAD) {
    serial->counters.duplicates++;
  } else if (cancel) {
    serial->on.in_next = (uint16_t)(sequence + 1u);
    serial->due = (uint8_t)DUE_ACK;
    forget_incoming(serial);
  } else if (ahead != 0u) {
    serial->counters.gaps++;
    serial->due |= FLAG_GAP;
  } else {
    serial->on.in_next = (uint16_t)(sequence + size);
    serial->due = (uint8_t)DUE_ACK;
    deliver(serial, &frame[HEADER], size);
  }
}

/* The peer is not up. Once it was heard as being up, or names other tags than those of this connection, it has begun
 * anew: it sends no greeting after its first other frame, and the line keeps the order. */
static void on_greeting(fm_serial_t *serial, const uint8_t *frame) {
  const uint32_t to = get16(&frame[1]);
  const uint32_t payload = frame[4];
  const uint32_t from = get16(&frame[5]);
  if ((frame[3] != VERSION) || (payload < LEAST_PAYLOAD) || (from == 0u)) {
    serial->counters.malformed++;
  } else if (from == serial->tag) {
    serial->counters.stale++;
  } else {
    if ((serial->phase == (uint8_t)PHASE_HEARD) ||
        ((serial->phase == (uint8_t)PHASE_UP) && ((from != serial->on.peer_tag) || (to != serial->tag)))) {
      enter(serial, (uint8_t)PHASE_GREETING);
    }
    serial->on.peer_tag = (uint16_t)from;
    serial->most = (uint8_t)least(payload, FM_SERIAL_PAYLOAD);
    serial->since_ms = serial->now_ms;
    serial->due = (uint8_t)DUE_GREET; /* when up: any frame will do for an answer */
    if ((serial->phase == (uint8_t)PHASE_GREETING) && (to == serial->tag)) {
      come_up(serial, (uint8_t)PHASE_UP);
    }
  }
}

static void on_frame(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  const uint32_t control = frame[0];
  if (size < (HEADER + CRC)) {
    serial->counters.cobs_errors++;
  } else if (fm_crc32(0u, frame, size - CRC) != get32(&frame[size - CRC])) {
    serial->counters.crc_errors++;
  } else {
    serial->counters.frames_in++;
    if ((control & KIND_MASK) == KIND_GREET) {
      on_greeting(serial, frame);
    } else if ((get16(&frame[1]) != serial->tag) || (serial->on.peer_tag == 0u)) {
      serial->counters.stale++;
    } else {
      if (serial->phase == (uint8_t)PHASE_GREETING) {
        come_up(serial, (uint8_t)PHASE_HEARD);
        serial->due = (uint8_t)DUE_ACK;
      }
      serial->phase = (uint8_t)PHASE_HEARD;
      serial->last_in_ms = serial->now_ms;
      if (!outstanding(serial)) {
        serial->since_ms = serial->now_ms;
      }
      serial->due |= ((control & FLAG_PROBE) != 0u) ? DUE_ACK : 0u;
      on_ack(serial, control, get16(&frame[3]));
      if ((control & KIND_MASK) != KIND_ACK) {
        on_segment(serial, frame, size - HEADER - CRC);
      }
    }
  }
}

static void on_byte(fm_serial_t *serial, uint8_t byte) {
  const fm_cobs_result_t result = fm_cobs_push(&serial->rx, serial->config->buffer, FM_SERIAL_RX_BUFFER, byte);
  if (result == FM_COBS_FRAME) {
    on_frame(serial, serial->config->buffer, serial->rx.size);
  } else if (result == FM_COBS_CUT) {
    serial->counters.cobs_errors++;
  } else if (result == FM_COBS_OVERSIZE) {
    serial->counters.oversize_errors++;
  } else {
    /* it goes on */
  }
}

/* Read once and act on it. True: bytes moved. */
static bool receive(fm_serial_t *serial) {
  const fm_stream_t *stream = &serial->config->stream;
  uint8_t bytes[READ_SIZE];
  const int32_t got = stream->api->read(stream->self, bytes, READ_SIZE);
  if (got < 0) {
    break_stream(serial);
  }
  for (int32_t i = 0; i < got; i++) {
    on_byte(serial, bytes[i]);
  }
  serial->counters.bytes_in += (got > 0) ? (uint32_t)got : 0u;
  return got > 0;
}

/* ---- the link ---- */

static void open_stream(fm_serial_t *serial) {
  const fm_status_t status = serial->config->stream.api->open(serial->config->stream.self);
  if (status == FM_OK) {
    enter(serial, (uint8_t)PHASE_GREETING);
  } else if (status == FM_AGAIN) {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = (uint16_t)RETRY_MS;
  } else {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = (uint16_t)least(GREET_MS + (2u * (uint32_t)serial->backoff_ms), LONGEST_GREET_MS);
  }
}

/* How long until there is something to do. */
static uint32_t rest(const fm_serial_t *serial) {
  uint32_t wait = left(serial, serial->since_ms, patience(serial));
  if (serial->phase >= (uint8_t)PHASE_UP) {
    wait = least(wait, hope(serial));
  }
  if (serial->tx_sent != serial->tx_size) {
    wait = least(wait, RETRY_MS); /* or call when the stream can be written */
  }
  return wait;
}

static fm_status_t serial_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fm_serial_t *serial = (fm_serial_t *)self;
  uint32_t reads = 0u;
  uint32_t writes = 0u;
  serial->now_ms = now_ms;
  serial->sink = sink;
  if (serial->phase == (uint8_t)PHASE_CLOSED) {
    forget_incoming(serial);
  }
  if ((serial->phase == (uint8_t)PHASE_CLOSED) && (left(serial, serial->since_ms, serial->backoff_ms) == 0u)) {
    open_stream(serial);
  }
  while ((serial->phase != (uint8_t)PHASE_CLOSED) && (reads < ROUNDS_A_POLL) && receive(serial)) {
    reads++;
  }
  if ((serial->phase != (uint8_t)PHASE_CLOSED) && (reads < ROUNDS_A_POLL)) {
    expire(serial); /* not before all that has come was looked at */
  }
  while ((serial->phase != (uint8_t)PHASE_CLOSED) && (writes < ROUNDS_A_POLL) && transmit(serial)) {
    writes++;
  }
  *wait_ms = least(*wait_ms, rest(serial));
  if ((reads == ROUNDS_A_POLL) || (writes == ROUNDS_A_POLL)) {
    *wait_ms = 0u;
  }
  serial->sink = NULL;
  return FM_OK;
}

static uint32_t serial_connection(const void *self) {
  const fm_serial_t *serial = (const fm_serial_t *)self;
  return (serial->phase >= (uint8_t)PHASE_UP) ? serial->connection : 0u;
}

static fm_status_t serial_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  fm_serial_t *serial = (fm_serial_t *)self;
  fm_status_t status = FM_AGAIN;
  if ((message->head_size > FM_SERIAL_MAX_MESSAGE) ||
      (message->body_size > (FM_SERIAL_MAX_MESSAGE - message->head_size))) {
    status = FM_ERR_BUFFER;
  } else if ((serial->phase >= (uint8_t)PHASE_UP) && (serial->out_state == (uint8_t)OUT_NONE)) {
    serial->out = *message;
    serial->out_end = PREFIX + message->head_size + message->body_size;
    serial->out_survives = delivery == FM_AT_LEAST_ONCE;
    serial->out_state = (uint8_t)OUT_MESSAGE;
    status = FM_OK;
  } else {
    /* not now */
  }
  return status;
}

static bool serial_sending(const void *self) { return ((const fm_serial_t *)self)->out_state == (uint8_t)OUT_MESSAGE; }

static void serial_abort(void *self) { give_up((fm_serial_t *)self); }

static bool stream_valid(const fm_stream_api_t *api) {
  return (api != NULL) && (api->open != NULL) && (api->read != NULL) && (api->write != NULL) && (api->close != NULL);
}

fm_status_t fm_serial_init(fm_serial_t *serial, const fm_serial_config_t *config, fm_link_t *link) {
  static const fm_link_api_t api = {serial_poll, serial_connection, serial_send, serial_sending, serial_abort, NULL};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((serial == NULL) || (config == NULL) || (link == NULL)) {
    /* a bug in the caller */
  } else if (!stream_valid(config->stream.api) || (config->buffer == NULL) ||
             (config->retransmit_ms > LONGEST_EXPIRY_MS) || (config->keep_alive_ms > LONGEST_KEEP_ALIVE_MS)) {
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
  if (serial->phase != (uint8_t)PHASE_CLOSED) {
    enter(serial, (uint8_t)PHASE_GREETING); /* its greeting ends the connection at the peer, too */
    serial->tx_sent = serial->tx_size;      /* the zero before the frame cuts off what is half written */
    (void)transmit(serial);
    break_stream(serial);
  }
  serial->backoff_ms = 0u;
}
