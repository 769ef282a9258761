/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: how the serial link's files share its struct.
 *
 * A file calls only files below it. tests/csdk/test_layers.py reads this list and holds the code to it.
 *
 * fm_serial.c        public entry: init, close, the link's functions; time
 * fm_serial_rx.c     frames in
 * fm_serial_tx.c     frames out
 * fm_serial_state.c  connections: begin, come up, end
 * fm_cobs.c          framing
 */
#ifndef FM_SERIAL_INTERNAL_H
#define FM_SERIAL_INTERNAL_H

#include "fedmote/fm_serial.h"

#define FM_SERIAL_VERSION 1u
#define FM_SERIAL_PREFIX 4u /* bytes of the length in front of a message */
#define FM_SERIAL_HEADER 7u
#define FM_SERIAL_CRC 4u
#define FM_SERIAL_LEAST_PAYLOAD 16u

#define FM_SERIAL_GREET_MS 250u           /* first wait for an answer, or until the port is opened again */
#define FM_SERIAL_LONGEST_EXPIRY_MS 8000u /* of a measured time to retransmission */

/* fm_serial_t.phase; the peer is HEARD when it is known to have come up too */
#define FM_SERIAL_PHASE_CLOSED 0u
#define FM_SERIAL_PHASE_GREETING 1u
#define FM_SERIAL_PHASE_UP 2u
#define FM_SERIAL_PHASE_HEARD 3u

/* The first byte of a frame: kind, flags, the sender's epoch, the epoch of the receiver's last segment. */
#define FM_SERIAL_KIND_GREET 0u
#define FM_SERIAL_KIND_ACK 1u
#define FM_SERIAL_KIND_DATA 2u
#define FM_SERIAL_KIND_CANCEL 3u
#define FM_SERIAL_KIND_MASK 0x03u
#define FM_SERIAL_FLAG_GAP 0x04u
#define FM_SERIAL_FLAG_PROBE 0x08u
#define FM_SERIAL_EPOCH 0x10u /* what is added for the sender's next epoch */
#define FM_SERIAL_EPOCH_MASK 0x30u

/* fm_serial_t.out_state: what is being sent, as the kind of its frames */
#define FM_SERIAL_OUT_NONE 0u
#define FM_SERIAL_OUT_MESSAGE FM_SERIAL_KIND_DATA
#define FM_SERIAL_OUT_CANCEL FM_SERIAL_KIND_CANCEL

#define FM_SERIAL_DUE_FRAME 0x01u /* fm_serial_t.due, which has the two flags, too */

static inline uint32_t fm_serial_get16(const uint8_t *bytes) { return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8); }

static inline void fm_serial_put16(uint8_t *out, uint32_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
}

/* Return what is left of `limit` milliseconds since `then_ms`. */
static inline uint32_t fm_serial_left_of(const fm_serial_t *serial, uint32_t then_ms, uint32_t limit) {
  const uint32_t gone = serial->now_ms - then_ms;
  return (gone < limit) ? (limit - gone) : 0u;
}

/* Milliseconds until a segment without acknowledgement is sent again. */
static inline uint32_t fm_serial_expiry(const fm_serial_t *serial) {
  return (serial->on.doubled_ms != 0u) ? serial->on.doubled_ms : serial->expiry_ms;
}

/* Tell whether sent bytes are unacknowledged. */
static inline bool fm_serial_outstanding(const fm_serial_t *serial) { return serial->on.high != serial->on.acked; }

/* ---- fm_serial_rx.c ---- */

/* Read once and act on it. True: bytes moved. */
bool fm_serial_receive(fm_serial_t *serial);

/* ---- fm_serial_tx.c ---- */

/* Write what is due, once. True: bytes moved. */
bool fm_serial_transmit(fm_serial_t *serial);
/* Drop the message in transit. If the peer may have part of it, a last segment says that it was cancelled. */
void fm_serial_give_up(fm_serial_t *serial);
/* Send again from the first byte that is not acknowledged, in smaller segments. */
void fm_serial_go_back(fm_serial_t *serial);
/* Start the next message's sequence numbers after those sent of this one. */
void fm_serial_next_base(fm_serial_t *serial);

/* ---- fm_serial_state.c ---- */

/* End the connection, if there is one, and enter a phase without one. */
void fm_serial_start_over(fm_serial_t *serial, uint32_t phase);
/* Begin a connection. */
void fm_serial_come_up(fm_serial_t *serial);
/* Close the stream, which ends the connection. */
void fm_serial_break_stream(fm_serial_t *serial);
/* Tell the sink, which is set only during a poll, that the message being received will not be completed. */
void fm_serial_drop_incoming(fm_serial_t *serial);
/* Draw the tag of the next connection. */
void fm_serial_new_tag(fm_serial_t *serial);

#endif
