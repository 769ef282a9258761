/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in: acknowledgements, segments, greetings. */
#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_cobs.h"
#include "fm_serial_internal.h"

#define CRC_OF_ALL 0x2144DF1Cu /* the CRC-32 of bytes with their own CRC-32 behind them */
#define PAYLOAD_STEP 8u        /* a segment grows by this when acknowledged; it is halved when lost */
#define AHEAD 0x8000u          /* less than this ahead: a new sequence number; otherwise an old one */
#define EXPIRY_MARGIN_MS 30u
#define READ_SIZE 32u
#define ECHO_SHIFT 2u /* from one epoch to the other */

static void update_expiry(fm_serial_t *serial) {
  const uint32_t took =
      fm_smaller(serial->now_ms - serial->on.timed_ms, (FM_SERIAL_LONGEST_EXPIRY_MS - EXPIRY_MARGIN_MS) / 2u);
  const uint32_t target = (2u * took) + EXPIRY_MARGIN_MS;
  serial->on.timed = 0u;
  serial->expiry_ms = (target > serial->expiry_ms) ? target : ((target + serial->expiry_ms) / 2u);
}

/* Learn from an acknowledgement. `fresh`: it is for bytes sent since the last go-back. Otherwise it arrived after the
 * timeout, so the timeout was too short. A timeout alone does not show that, since noise also causes timeouts. */
static void on_progress(fm_serial_t *serial, uint32_t size, bool fresh) {
  if (!fresh) {
    serial->expiry_ms = fm_serial_expiry(serial);
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
    update_expiry(serial);
  }
  if (serial->on.acked == serial->out_end) {
    serial->out_state = FM_SERIAL_OUT_NONE;
    fm_serial_next_base(serial);
  }
}

/* An acknowledgement older than the last one, or of bytes never sent, is ignored. */
static void on_ack(fm_serial_t *serial, uint32_t control, uint32_t ack) {
  const uint32_t size = (ack - serial->on.base - serial->on.acked) & 0xFFFFu;
  const bool fresh = (((control >> ECHO_SHIFT) ^ serial->on.epochs) & FM_SERIAL_EPOCH_MASK) == 0u;
  if (fm_serial_outstanding(serial) && (size != 0u) && (size <= (serial->on.high - serial->on.acked))) {
    on_progress(serial, size, fresh);
  }
  if (((control & FM_SERIAL_FLAG_GAP) != 0u) && fm_serial_outstanding(serial) && fresh) {
    fm_serial_go_back(serial); /* only once: answers to earlier segments have another epoch */
  }
}

/* Take the next bytes of the stream of messages. */
static void deliver(fm_serial_t *serial, const uint8_t *bytes, uint32_t size) {
  uint32_t at = 0u;
  if ((serial->in_busy == 0u) && (size >= FM_SERIAL_PREFIX)) {
    at = FM_SERIAL_PREFIX;
    serial->in_busy = 1u;
    serial->in_left = fm_serial_get16(bytes) | (fm_serial_get16(&bytes[2]) << 16);
    serial->sink->begin(serial->sink->user, serial->in_left);
  }
  if ((serial->in_busy == 0u) || (size == 0u) || ((size - at) > serial->in_left)) {
    fm_serial_start_over(serial, FM_SERIAL_PHASE_GREETING); /* the two ends no longer agree where messages begin */
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
  const uint32_t sequence = fm_serial_get16(&frame[5]);
  const uint32_t ahead = (sequence - serial->on.in_next) & 0xFFFFu;
  const uint32_t control = frame[0];
  serial->on.epochs = (serial->on.epochs & FM_SERIAL_EPOCH_MASK) | ((control & FM_SERIAL_EPOCH_MASK) << ECHO_SHIFT);
  serial->due |= FM_SERIAL_DUE_FRAME;
  if (ahead >= AHEAD) {
    /* it was received before */
  } else if ((control & FM_SERIAL_KIND_MASK) == FM_SERIAL_KIND_CANCEL) {
    serial->on.in_next = sequence + 1u;
    serial->due = FM_SERIAL_DUE_FRAME;
    fm_serial_drop_incoming(serial);
  } else if (ahead != 0u) {
    serial->due |= FM_SERIAL_FLAG_GAP;
  } else {
    serial->on.in_next = sequence + size;
    serial->due = FM_SERIAL_DUE_FRAME;
    deliver(serial, &frame[FM_SERIAL_HEADER], size);
  }
}

/* A greeting: the peer is not up. If it was up before, or names other tags than this connection's, it has restarted: a
 * peer sends no greeting after its first other frame, and the line keeps the order. */
static void on_greeting(fm_serial_t *serial, const uint8_t *frame) {
  const uint32_t to = fm_serial_get16(&frame[1]);
  const uint32_t payload = frame[4];
  const uint32_t from = fm_serial_get16(&frame[5]);
  if ((frame[3] == FM_SERIAL_VERSION) && (payload >= FM_SERIAL_LEAST_PAYLOAD) && (from != 0u) &&
      (from != serial->tag)) { /* no echo */
    const bool same = (from == serial->on.peer_tag) && (to == serial->tag);
    if (serial->phase >= (same ? FM_SERIAL_PHASE_HEARD : FM_SERIAL_PHASE_UP)) {
      fm_serial_start_over(serial, FM_SERIAL_PHASE_GREETING);
    }
    serial->on.peer_tag = from;
    serial->most = fm_smaller(payload, FM_SERIAL_PAYLOAD);
    serial->since_ms = serial->now_ms;
    serial->due = FM_SERIAL_DUE_FRAME; /* when up, any frame is an answer */
    if ((serial->phase == FM_SERIAL_PHASE_GREETING) && (to == serial->tag)) {
      fm_serial_come_up(serial);
    }
  }
}

/* A frame of this connection. */
static void on_known(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  const uint32_t control = frame[0];
  if (serial->phase == FM_SERIAL_PHASE_GREETING) {
    fm_serial_come_up(serial);
  }
  serial->phase = FM_SERIAL_PHASE_HEARD;
  serial->last_in_ms = serial->now_ms;
  if (!fm_serial_outstanding(serial)) {
    serial->since_ms = serial->now_ms;
  }
  if ((control & FM_SERIAL_FLAG_PROBE) != 0u) {
    serial->due |= FM_SERIAL_DUE_FRAME;
  }
  on_ack(serial, control, fm_serial_get16(&frame[3]));
  if ((control & FM_SERIAL_KIND_MASK) != FM_SERIAL_KIND_ACK) {
    on_segment(serial, frame, size);
  }
}

static void on_frame(fm_serial_t *serial, const uint8_t *frame, uint32_t size) {
  if ((size < (FM_SERIAL_HEADER + FM_SERIAL_CRC)) || (fm_crc32(0u, frame, size) != CRC_OF_ALL)) {
    serial->counters.crc_errors++;
  } else {
    serial->counters.frames_in++;
    if ((frame[0] & FM_SERIAL_KIND_MASK) == FM_SERIAL_KIND_GREET) {
      on_greeting(serial, frame);
    } else if ((fm_serial_get16(&frame[1]) == serial->tag) && (serial->on.peer_tag != 0u)) {
      on_known(serial, frame, size - FM_SERIAL_HEADER - FM_SERIAL_CRC);
    } else {
      /* of an older connection */
    }
  }
}

/* Read once and act on it. True: bytes moved. */
bool fm_serial_receive(fm_serial_t *serial) {
  const fm_stream_t *stream = &serial->config->stream;
  uint8_t bytes[READ_SIZE];
  const int32_t got = stream->api->read(stream->self, bytes, READ_SIZE);
  if (got < 0) {
    fm_serial_break_stream(serial);
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
