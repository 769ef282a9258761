/* SPDX-License-Identifier: Apache-2.0 */
/* Frames out: the next segment, a greeting, or an acknowledgement alone. */
#include "fedmote/fm_crc32.h"
#include "fm_bits.h"
#include "fm_cobs.h"
#include "fm_serial_internal.h"

/* Skip the sequence numbers sent of this message, whether the peer received them or not. */
void fm_serial_next_base(fm_serial_t *serial) {
  serial->on.base = serial->on.base + serial->on.high;
  serial->on.acked = 0u;
  serial->on.next = 0u;
  serial->on.high = 0u;
  serial->on.timed = 0u;
}

/* Drop the message in transit. If the peer may have part of it, a last segment says that it was cancelled. */
void fm_serial_give_up(fm_serial_t *serial) {
  if (serial->out_state == FM_SERIAL_OUT_MESSAGE) {
    serial->out_state = (serial->on.high != 0u) ? FM_SERIAL_OUT_CANCEL : FM_SERIAL_OUT_NONE;
    serial->out_end = 1u; /* its sequence number */
    fm_serial_next_base(serial);
  }
}

void fm_serial_go_back(fm_serial_t *serial) {
  serial->counters.retransmits++;
  serial->on.next = serial->on.acked;
  serial->on.timed = 0u; /* measure again; an acknowledgement's epoch tells which transmission it is for */
  serial->on.epochs =
      (serial->on.epochs & ~FM_SERIAL_EPOCH_MASK) | ((serial->on.epochs + FM_SERIAL_EPOCH) & FM_SERIAL_EPOCH_MASK);
  if (serial->segment >= (2u * FM_SERIAL_LEAST_PAYLOAD)) {
    serial->segment /= 2u;
  }
}

/* Copy `size` bytes of the message with its length in front, from `offset`. */
static fm_status_t gather(const fm_serial_t *serial, uint32_t offset, uint8_t *out, uint32_t size) {
  const uint32_t total = serial->out_end - FM_SERIAL_PREFIX;
  const uint32_t body_at = FM_SERIAL_PREFIX + serial->out.head_size;
  fm_status_t status = FM_OK;
  uint32_t at = offset;
  const uint32_t end = offset + size;
  while ((at < end) && (at < body_at)) {
    out[at - offset] =
        (uint8_t)((at < FM_SERIAL_PREFIX) ? (total >> (8u * at)) : (uint32_t)serial->out.head[at - FM_SERIAL_PREFIX]);
    at++;
  }
  if (at < end) {
    status = serial->out.read(serial->out.user, at - body_at, &out[at - offset], end - at);
  }
  return status;
}

static uint8_t *frame_of(const fm_serial_t *serial) { return &serial->config->buffer[FM_SERIAL_RX_BUFFER]; }

/* After a timeout, send one segment at a time until one is acknowledged, so that a slow line is not filled with copies.
 */
static uint32_t segment_size(const fm_serial_t *serial) {
  const uint32_t window = (serial->on.doubled_ms != 0u) ? 0u : ((FM_SERIAL_WINDOW - 1u) * serial->segment);
  uint32_t size = 0u; /* nothing may be sent */
  if ((serial->out_state != FM_SERIAL_OUT_NONE) && ((serial->on.next - serial->on.acked) <= window)) {
    size = fm_smaller(serial->segment, serial->out_end - serial->on.next);
  }
  return size;
}

/* Note that the segment at `next` is sent now. */
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

/* Finish the frame whose payload is in place. A zero before it ends any noise that arrived while the line was idle. */
static void put_frame(fm_serial_t *serial, uint32_t control, uint32_t sequence, uint32_t size) {
  const bool greet = control == FM_SERIAL_KIND_GREET;
  uint8_t *frame = frame_of(serial);
  uint8_t *header = &frame[2];
  uint8_t *end = &header[FM_SERIAL_HEADER + size];
  uint32_t crc;
  frame[0] = 0u;
  header[0] = (uint8_t)control;
  fm_serial_put16(&header[1], serial->on.peer_tag);
  fm_serial_put16(&header[3], greet ? (FM_SERIAL_VERSION | ((uint32_t)FM_SERIAL_PAYLOAD << 8)) : serial->on.in_next);
  fm_serial_put16(&header[5], greet ? serial->tag : sequence);
  crc = fm_crc32(0u, header, FM_SERIAL_HEADER + size);
  fm_serial_put16(end, crc);
  fm_serial_put16(&end[2], crc >> 16);
  fm_cobs_encode(&frame[1], FM_SERIAL_HEADER + size + FM_SERIAL_CRC);
  serial->tx_size = FM_SERIAL_HEADER + size + FM_SERIAL_CRC + 3u;
  serial->tx_sent = 0u;
  serial->due = 0u;
  serial->counters.frames_out++;
}

/* The next frame, if there is one to send. Every frame acknowledges. */
static void choose_frame(fm_serial_t *serial) {
  uint32_t control = FM_SERIAL_KIND_GREET;
  uint32_t sequence = 0u;
  uint32_t size = 0u;
  if (serial->phase != FM_SERIAL_PHASE_GREETING) {
    size = segment_size(serial);
    if ((size != 0u) && (serial->out_state == FM_SERIAL_OUT_MESSAGE) &&
        (gather(serial, serial->on.next, &frame_of(serial)[2u + FM_SERIAL_HEADER], size) != FM_OK)) {
      fm_serial_give_up(serial); /* reading it again would fail again */
      size = segment_size(serial);
    }
    control = serial->on.epochs | (serial->due & (FM_SERIAL_FLAG_GAP | FM_SERIAL_FLAG_PROBE)) |
              ((size != 0u) ? serial->out_state : FM_SERIAL_KIND_ACK);
    sequence = serial->on.base + serial->on.next;
  }
  if ((size | serial->due) != 0u) {
    if (size != 0u) {
      advance(serial, size);
    }
    put_frame(serial, control, sequence, ((control & FM_SERIAL_KIND_MASK) == FM_SERIAL_KIND_DATA) ? size : 0u);
  }
}

/* Write once what is due. True: bytes moved. */
bool fm_serial_transmit(fm_serial_t *serial) {
  const fm_stream_t *stream = &serial->config->stream;
  bool moved = false;
  if (serial->tx_sent == serial->tx_size) {
    choose_frame(serial);
  }
  if (serial->tx_sent != serial->tx_size) {
    const int32_t sent =
        stream->api->write(stream->self, &frame_of(serial)[serial->tx_sent], serial->tx_size - serial->tx_sent);
    if (sent < 0) {
      fm_serial_break_stream(serial);
    } else {
      serial->tx_sent += (uint32_t)sent;
      serial->counters.bytes_out += (uint32_t)sent;
      moved = sent != 0;
    }
  }
  return moved;
}
