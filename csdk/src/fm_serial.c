/* SPDX-License-Identifier: Apache-2.0 */
/* The serial link. A message is sent as one run of bytes, its length first, cut into segments; each byte has a sequence
 * number modulo 2^16 within its connection. The receiver takes segments in order only; the sender goes back to what was
 * not acknowledged when told of a gap or when time runs out. The procedure is in docs/wire.md. */
#include "fedmote/fm_serial.h"

#include <stddef.h>
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_cobs.h"

#define VERSION 1u
#define PREFIX 4u /* bytes of a message's length before it */
#define HEADER 7u
#define CRC 4u
#define CRC_OF_ALL 0x2144DF1Cu /* the CRC-32 of bytes with their own CRC-32 behind them */
#define LEAST_PAYLOAD 16u
#define PAYLOAD_STEP 8u /* a segment grows by this when acknowledged; it is halved when lost */
#define AHEAD 0x8000u   /* sequence numbers closer than this are of the future, others of the past */

#define GREET_MS 250u /* first wait for an answer, or before opening again; doubles up to */
#define LONGEST_GREET_MS 4000u
#define DEFAULT_EXPIRY_MS 500u
#define LONGEST_EXPIRY_MS 8000u  /* as measured */
#define LONGEST_DOUBLED_MS 2000u /* by doubling alone: noise, too, makes time run out */
#define EXPIRY_MARGIN_MS 30u
#define DEFAULT_KEEP_ALIVE_MS 5000u
#define LONGEST_KEEP_ALIVE_MS 0x10000000u
#define RETRY_MS 10u /* opening, or a stream that takes nothing */
#define ROUNDS_A_POLL 8u
#define READ_SIZE 32u

/* fm_serial_t.phase; the peer is HEARD when it is known to have come up too */
#define PHASE_CLOSED 0u
#define PHASE_GREETING 1u
#define PHASE_UP 2u
#define PHASE_HEARD 3u

/* The first byte of a frame: kind, flags, the sender's epoch, the epoch of the receiver's last segment. */
#define KIND_GREET 0u
#define KIND_ACK 1u
#define KIND_DATA 2u
#define KIND_CANCEL 3u
#define KIND_MASK 0x03u
#define FLAG_GAP 0x04u
#define FLAG_PROBE 0x08u
#define EPOCH 0x10u
#define EPOCH_MASK 0x30u
#define ECHO_SHIFT 2u /* from one epoch to the other */

/* fm_serial_t.out_state: what is to be sent, as the kind of the frames that it takes */
#define OUT_NONE 0u
#define OUT_MESSAGE KIND_DATA
#define OUT_CANCEL KIND_CANCEL

#define DUE_FRAME 0x01u /* fm_serial_t.due, which has the two flags, too */

static uint32_t get16(const uint8_t *bytes) { return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8); }

static void put16(uint8_t *out, uint32_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
}

/* What is left of `limit` milliseconds since `then_ms`; 0: nothing. */
static uint32_t left_of(const fm_serial_t *serial, uint32_t then_ms, uint32_t limit) {
  const uint32_t gone = serial->now_ms - then_ms;
  return (gone < limit) ? (limit - gone) : 0u;
}

/* ---- connections ---- */

/* A linear congruential generator. The time takes part so that two ends with the same seed do not choose the same for
 * ever. */
static void new_tag(fm_serial_t *serial) {
  serial->random = (serial->random + serial->now_ms + 1u) * 1664525u;
  serial->tag = (serial->random >> 16) | 1u;
}

/* There is a sink during poll only: what breaks outside is told by the next one. */
static void drop_incoming(fm_serial_t *serial) {
  if ((serial->in_busy != 0u) && (serial->sink != NULL)) {
    serial->in_busy = 0u;
    serial->sink->end(serial->sink->user, false);
  }
}

/* The connection, if there is one, has ended. */
static void start_over(fm_serial_t *serial, uint32_t phase) {
  serial->counters.lost += (serial->phase >= PHASE_UP) ? 1u : 0u;
  drop_incoming(serial);
  if ((serial->out_state == OUT_CANCEL) || (serial->out_survives == 0u)) {
    serial->out_state = OUT_NONE;
  }
  (void)memset(&serial->on, 0, sizeof serial->on);
  serial->expiry_ms = (serial->config->retransmit_ms != 0u) ? serial->config->retransmit_ms : DEFAULT_EXPIRY_MS;
  serial->phase = phase;
  serial->since_ms = serial->now_ms;
  serial->backoff_ms = GREET_MS;
  serial->due = DUE_FRAME;
  new_tag(serial);
}

static void come_up(fm_serial_t *serial) {
  serial->phase = PHASE_UP;
  serial->due = DUE_FRAME;
  serial->connection++;
  serial->connection += (serial->connection == 0u) ? 1u : 0u;
  serial->counters.connections++;
  serial->segment = serial->most;
  serial->last_in_ms = serial->now_ms;
}

static void break_stream(fm_serial_t *serial) {
  serial->config->stream.api->close(serial->config->stream.self);
  serial->rx.count = 0u;
  serial->rx.left = 0u;
  serial->tx_size = 0u;
  serial->tx_sent = 0u;
  start_over(serial, PHASE_CLOSED);
}

/* ---- sending ---- */

static bool outstanding(const fm_serial_t *serial) { return serial->on.high != serial->on.acked; }

/* What was sent of the message is behind us, whether the peer took it or not. */
static void next_base(fm_serial_t *serial) {
  serial->on.base = serial->on.base + serial->on.high;
  serial->on.acked = 0u;
  serial->on.next = 0u;
  serial->on.high = 0u;
  serial->on.timed = 0u;
}

/* Forget the message under way. Where the peer may have some of it, a last segment says so. */
static void give_up(fm_serial_t *serial) {
  if (serial->out_state == OUT_MESSAGE) {
    serial->out_state = (serial->on.high != 0u) ? OUT_CANCEL : OUT_NONE;
    serial->out_end = 1u; /* its sequence number */
    next_base(serial);
  }
}

static void go_back(fm_serial_t *serial) {
  serial->counters.retransmits++;
  serial->on.next = serial->on.acked;
  serial->on.timed = 0u; /* measured anew: which sending an acknowledgement is of, its epoch tells */
  serial->on.epochs = (serial->on.epochs & ~EPOCH_MASK) | ((serial->on.epochs + EPOCH) & EPOCH_MASK);
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

/* Until something is acknowledged after time ran out there is one segment on the line, so that a slow one is not filled
 * with copies. */
static uint32_t segment_size(const fm_serial_t *serial) {
  const uint32_t window = (serial->on.doubled_ms != 0u) ? 0u : ((FM_SERIAL_WINDOW - 1u) * serial->segment);
  uint32_t size = 0u; /* nothing may be sent */
  if ((serial->out_state != OUT_NONE) && ((serial->on.next - serial->on.acked) <= window)) {
    size = fm_smaller(serial->segment, serial->out_end - serial->on.next);
  }
  return size;
}

/* The segment at `next` goes out now. */
static void advance(fm_serial_t *serial, uint32_t size) {
  const uint32_t end = serial->on.next + size;
  serial->on.next = end;
  serial->since_ms = serial->now_ms;
  if (serial->on.timed == 0u) {
    serial->on.timed = end;
    serial->on.timed_ms = serial->now_ms;
  }
  if (end > serial->on.high) {
    serial->on.high = end;
  }
}

/* Finish the frame whose payload is in place. A zero before it ends whatever the line made up while it was idle. */
static void put_frame(fm_serial_t *serial, uint32_t control, uint32_t sequence, uint32_t size) {
  const bool greet = control == KIND_GREET;
  uint8_t *frame = frame_of(serial);
  uint8_t *header = &frame[2];
  uint8_t *end = &header[HEADER + size];
  uint32_t crc;
  frame[0] = 0u;
  header[0] = (uint8_t)control;
  put16(&header[1], serial->on.peer_tag);
  put16(&header[3], greet ? (VERSION | ((uint32_t)FM_SERIAL_PAYLOAD << 8)) : serial->on.in_next);
  put16(&header[5], greet ? serial->tag : sequence);
  crc = fm_crc32(0u, header, HEADER + size);
  put16(end, crc);
  put16(&end[2], crc >> 16);
  fm_cobs_encode(&frame[1], HEADER + size + CRC);
  serial->tx_size = HEADER + size + CRC + 3u;
  serial->tx_sent = 0u;
  serial->due = 0u;
  serial->counters.frames_out++;
}

/* The next frame, if there is one to send. Every frame acknowledges. */
static void choose_frame(fm_serial_t *serial) {
  uint32_t control = KIND_GREET;
  uint32_t sequence = 0u;
  uint32_t size = 0u;
  if (serial->phase != PHASE_GREETING) {
    size = segment_size(serial);
    if ((size != 0u) && (serial->out_state == OUT_MESSAGE) &&
        (gather(serial, serial->on.next, &frame_of(serial)[2u + HEADER], size) != FM_OK)) {
      give_up(serial); /* it will not get better by reading it again */
      size = segment_size(serial);
    }
    control =
        serial->on.epochs | (serial->due & (FLAG_GAP | FLAG_PROBE)) | ((size != 0u) ? serial->out_state : KIND_ACK);
    sequence = serial->on.base + serial->on.next;
  }
  if ((size | serial->due) != 0u) {
    if (size != 0u) {
      advance(serial, size);
    }
    put_frame(serial, control, sequence, ((control & KIND_MASK) == KIND_DATA) ? size : 0u);
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
    const int32_t sent =
        stream->api->write(stream->self, &frame_of(serial)[serial->tx_sent], serial->tx_size - serial->tx_sent);
    if (sent < 0) {
      break_stream(serial);
    } else {
      serial->tx_sent += (uint32_t)sent;
      serial->counters.bytes_out += (uint32_t)sent;
      moved = sent != 0;
    }
  }
  return moved;
}

/* ---- time ---- */

/* A peer that is silent for so long is asked, and for four times as long is gone. */
static uint32_t silence_ms(const fm_serial_t *serial) {
  const uint32_t limit = serial->config->keep_alive_ms;
  return (limit != 0u) ? limit : DEFAULT_KEEP_ALIVE_MS;
}

/* Time to retransmission. */
static uint32_t expiry(const fm_serial_t *serial) {
  return (serial->on.doubled_ms != 0u) ? serial->on.doubled_ms : serial->expiry_ms;
}

/* Milliseconds to the next thing to do. */
static uint32_t patience(const fm_serial_t *serial) {
  uint32_t limit = serial->backoff_ms;
  if (serial->phase >= PHASE_UP) {
    limit = outstanding(serial) ? expiry(serial) : silence_ms(serial);
  }
  return left_of(serial, serial->since_ms, limit);
}

/* What is left until silence means that the peer is gone. */
static uint32_t hope(const fm_serial_t *serial) {
  return (serial->phase >= PHASE_UP) ? left_of(serial, serial->last_in_ms, 4u * silence_ms(serial)) : LONGEST_GREET_MS;
}

/* Do what time brings while the stream is open. */
static void expire(fm_serial_t *serial) {
  if (hope(serial) == 0u) {
    start_over(serial, PHASE_GREETING);
  } else if (patience(serial) == 0u) {
    if (serial->phase == PHASE_GREETING) {
      serial->backoff_ms = fm_smaller(2u * serial->backoff_ms, LONGEST_GREET_MS);
      serial->due = DUE_FRAME;
      if (serial->on.peer_tag == 0u) {
        new_tag(serial); /* the peer may have the same, and takes this end's greeting for its echo */
      }
    } else if (outstanding(serial)) {
      serial->on.doubled_ms = expiry(serial);
      if (serial->on.doubled_ms < LONGEST_DOUBLED_MS) {
        serial->on.doubled_ms = fm_smaller(2u * serial->on.doubled_ms, LONGEST_DOUBLED_MS);
      }
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
  const uint32_t took = fm_smaller(serial->now_ms - serial->on.timed_ms, (LONGEST_EXPIRY_MS - EXPIRY_MARGIN_MS) / 2u);
  const uint32_t target = (2u * took) + EXPIRY_MARGIN_MS;
  serial->on.timed = 0u;
  serial->expiry_ms = (target > serial->expiry_ms) ? target : ((target + serial->expiry_ms) / 2u);
}

/* `fresh`: of what was sent since the last go-back. An older one came after time had run out: too early, then. That
 * time ran out alone says little, since noise does that too. */
static void on_progress(fm_serial_t *serial, uint32_t size, bool fresh) {
  if (!fresh) {
    serial->expiry_ms = expiry(serial);
    serial->on.timed = 0u;
  }
  serial->on.doubled_ms = 0u;
  serial->on.acked += size;
  serial->since_ms = serial->now_ms;
  serial->segment = fm_smaller(serial->segment + PAYLOAD_STEP, serial->most);
  if (serial->on.next < serial->on.acked) {
    serial->on.next = serial->on.acked;
  }
  if ((serial->on.timed != 0u) && (serial->on.acked >= serial->on.timed)) {
    measured(serial);
  }
  if (serial->on.acked == serial->out_end) {
    serial->out_state = OUT_NONE;
    next_base(serial);
  }
}

/* Of what is older than the last acknowledgement, or was never sent, nothing is taken. */
static void on_ack(fm_serial_t *serial, uint32_t control, uint32_t ack) {
  const uint32_t size = (ack - serial->on.base - serial->on.acked) & 0xFFFFu;
  const bool fresh = (((control >> ECHO_SHIFT) ^ serial->on.epochs) & EPOCH_MASK) == 0u;
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
  if ((serial->in_busy == 0u) && (size >= PREFIX)) {
    at = PREFIX;
    serial->in_busy = 1u;
    serial->in_left = get16(bytes) | (get16(&bytes[2]) << 16);
    serial->sink->begin(serial->sink->user, serial->in_left);
  }
  if ((serial->in_busy == 0u) || (size == 0u) || ((size - at) > serial->in_left)) {
    start_over(serial, PHASE_GREETING); /* the two ends no longer agree where messages begin */
  } else {
    if (size != at) {
      serial->in_left -= size - at;
      serial->sink->data(serial->sink->user, &bytes[at], size - at);
    }
    if (serial->in_left == 0u) {
      serial->in_busy = 0u;
      serial->sink->end(serial->sink->user, true);
    }
  }
}

static void on_segment(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  const uint32_t sequence = get16(&frame[5]);
  const uint32_t ahead = (sequence - serial->on.in_next) & 0xFFFFu;
  const uint32_t control = frame[0];
  serial->on.epochs = (serial->on.epochs & EPOCH_MASK) | ((control & EPOCH_MASK) << ECHO_SHIFT);
  serial->due |= DUE_FRAME;
  if (ahead >= AHEAD) {
    /* it was received before */
  } else if ((control & KIND_MASK) == KIND_CANCEL) {
    serial->on.in_next = sequence + 1u;
    serial->due = DUE_FRAME;
    drop_incoming(serial);
  } else if (ahead != 0u) {
    serial->due |= FLAG_GAP;
  } else {
    serial->on.in_next = sequence + size;
    serial->due = DUE_FRAME;
    deliver(serial, &frame[HEADER], size);
  }
}

/* The peer is not up. Once it was heard as being up, or names other tags than those of this connection, it has begun
 * anew: it sends no greeting after its first other frame, and the line keeps the order. */
static void on_greeting(fm_serial_t *serial, const uint8_t *frame) {
  const uint32_t to = get16(&frame[1]);
  const uint32_t payload = frame[4];
  const uint32_t from = get16(&frame[5]);
  if ((frame[3] == VERSION) && (payload >= LEAST_PAYLOAD) && (from != 0u) && (from != serial->tag)) { /* no echo */
    const bool same = (from == serial->on.peer_tag) && (to == serial->tag);
    if (serial->phase >= (same ? PHASE_HEARD : PHASE_UP)) {
      start_over(serial, PHASE_GREETING);
    }
    serial->on.peer_tag = from;
    serial->most = fm_smaller(payload, FM_SERIAL_PAYLOAD);
    serial->since_ms = serial->now_ms;
    serial->due = DUE_FRAME; /* when up: any frame will do for an answer */
    if ((serial->phase == PHASE_GREETING) && (to == serial->tag)) {
      come_up(serial);
    }
  }
}

/* A frame of this connection. */
static void on_known(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  const uint32_t control = frame[0];
  if (serial->phase == PHASE_GREETING) {
    come_up(serial);
  }
  serial->phase = PHASE_HEARD;
  serial->last_in_ms = serial->now_ms;
  if (!outstanding(serial)) {
    serial->since_ms = serial->now_ms;
  }
  if ((control & FLAG_PROBE) != 0u) {
    serial->due |= DUE_FRAME;
  }
  on_ack(serial, control, get16(&frame[3]));
  if ((control & KIND_MASK) != KIND_ACK) {
    on_segment(serial, frame, size);
  }
}

static void on_frame(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  if ((size < (HEADER + CRC)) || (fm_crc32(0u, frame, size) != CRC_OF_ALL)) {
    serial->counters.crc_errors++;
  } else {
    serial->counters.frames_in++;
    if ((frame[0] & KIND_MASK) == KIND_GREET) {
      on_greeting(serial, frame);
    } else if ((get16(&frame[1]) == serial->tag) && (serial->on.peer_tag != 0u)) {
      on_known(serial, frame, size - HEADER - CRC);
    } else {
      /* of an older connection */
    }
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
    const uint32_t ended = fm_cobs_push(&serial->rx, serial->config->buffer, FM_SERIAL_RX_BUFFER, bytes[i]);
    if (ended != 0u) {
      on_frame(serial, serial->config->buffer, ended - 1u);
    }
  }
  serial->counters.bytes_in += (got > 0) ? (uint32_t)got : 0u;
  return got > 0;
}

/* ---- the link ---- */

static void open_line(fm_serial_t *serial) {
  const fm_status_t status = serial->config->stream.api->open(serial->config->stream.self);
  if (status == FM_OK) {
    start_over(serial, PHASE_GREETING);
  } else if (status == FM_AGAIN) {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = RETRY_MS;
  } else {
    serial->since_ms = serial->now_ms;
    serial->backoff_ms = fm_smaller(GREET_MS + (2u * serial->backoff_ms), LONGEST_GREET_MS);
  }
}

/* How long until there is something to do. */
static uint32_t rest(const fm_serial_t *serial) {
  uint32_t wait = fm_smaller(patience(serial), hope(serial));
  if (serial->tx_sent != serial->tx_size) {
    wait = fm_smaller(wait, RETRY_MS); /* or call when the stream can be written */
  }
  return wait;
}

/* What there is to do on an open stream. True: there is more than one poll does. */
static bool work(fm_serial_t *serial) {
  uint32_t reads = ROUNDS_A_POLL;
  uint32_t writes = ROUNDS_A_POLL;
  while ((reads != 0u) && receive(serial)) {
    reads--;
  }
  if (reads != 0u) {
    expire(serial); /* not before all that has come was looked at; a stream that just broke has time */
  }
  while ((serial->phase != PHASE_CLOSED) && (writes != 0u) && transmit(serial)) {
    writes--;
  }
  return (reads == 0u) || (writes == 0u);
}

static fm_status_t serial_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fm_serial_t *serial = (fm_serial_t *)self;
  bool more = false;
  serial->now_ms = now_ms;
  serial->sink = sink;
  if (serial->phase == PHASE_CLOSED) {
    drop_incoming(serial);
    if (patience(serial) == 0u) {
      open_line(serial);
    }
  }
  if (serial->phase != PHASE_CLOSED) {
    more = work(serial);
  }
  *wait_ms = more ? 0u : fm_smaller(*wait_ms, rest(serial));
  serial->sink = NULL;
  return FM_OK;
}

static uint32_t serial_connection(const void *self) {
  const fm_serial_t *serial = (const fm_serial_t *)self;
  return (serial->phase >= PHASE_UP) ? serial->connection : 0u;
}

static fm_status_t serial_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  fm_serial_t *serial = (fm_serial_t *)self;
  fm_status_t status = FM_AGAIN;
  if ((message->head_size > FM_SERIAL_MAX_MESSAGE) ||
      (message->body_size > (FM_SERIAL_MAX_MESSAGE - message->head_size))) {
    status = FM_ERR_BUFFER;
  } else if ((serial->phase >= PHASE_UP) && (serial->out_state == OUT_NONE)) {
    serial->out = *message;
    serial->out_end = PREFIX + message->head_size + message->body_size;
    serial->out_survives = (delivery == FM_AT_LEAST_ONCE) ? 1u : 0u;
    serial->out_state = OUT_MESSAGE;
    status = FM_OK;
  } else {
    /* not now */
  }
  return status;
}

static bool serial_sending(const void *self) { return ((const fm_serial_t *)self)->out_state == OUT_MESSAGE; }

static void serial_abort(void *self) { give_up((fm_serial_t *)self); }

static bool line_valid(const fm_stream_api_t *api) {
  return (api != NULL) && (api->open != NULL) && (api->read != NULL) && (api->write != NULL) && (api->close != NULL);
}

fm_status_t fm_serial_init(fm_serial_t *serial, const fm_serial_config_t *config, fm_link_t *link) {
  static const fm_link_api_t api = {serial_poll, serial_connection, serial_send, serial_sending, serial_abort, NULL};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((serial == NULL) || (config == NULL) || (link == NULL)) {
    /* a bug in the caller */
  } else if (!line_valid(config->stream.api) || (config->buffer == NULL) ||
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
  if (serial->phase != PHASE_CLOSED) {
    start_over(serial, PHASE_GREETING); /* its greeting ends the connection at the peer, too */
    serial->tx_sent = serial->tx_size;  /* the zero before the frame cuts off what is half written */
    (void)transmit(serial);
    break_stream(serial);
  }
  serial->backoff_ms = 0u;
}
