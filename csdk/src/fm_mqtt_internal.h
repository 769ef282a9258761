/* SPDX-License-Identifier: Apache-2.0 */
/* Internal: how the MQTT link's files share its struct.
 *
 * A file calls only files below it. tests/csdk/test_layers.py reads this list and holds the code to it.
 *
 * fm_mqtt.c        public entry: init, close, the link's functions; connecting and keeping alive
 * fm_mqtt_rx.c     packets in
 * fm_mqtt_tx.c     packets out
 * fm_mqtt_state.c  enter a state, close, back off
 */
#ifndef FM_MQTT_INTERNAL_H
#define FM_MQTT_INTERNAL_H

#include "fedmote/fm_mqtt.h"

/* fm_mqtt_t.phase; up to OPENING there is no stream to read or write */
enum { FM_PHASE_CLOSED = 0, FM_PHASE_OPENING, FM_PHASE_CONNECTING, FM_PHASE_SUBSCRIBING, FM_PHASE_UP };

/* fm_mqtt_t.out_state */
enum { FM_OUT_NONE = 0, FM_OUT_READY, FM_OUT_WRITING, FM_OUT_UNACKNOWLEDGED };

/* fm_mqtt_t.rx_stage */
enum { FM_RX_HEADER = 0, FM_RX_LENGTH, FM_RX_SHORT, FM_RX_PUBLISH, FM_RX_PAYLOAD };

/* fm_mqtt_t.packet */
enum {
  FM_PACKET_NONE = 0,
  FM_PACKET_CONNECT,
  FM_PACKET_PUBACK,
  FM_PACKET_PING,
  FM_PACKET_SUBSCRIBE,
  FM_PACKET_UNSUBSCRIBE,
  FM_PACKET_FETCH,
  FM_PACKET_PUBLISH
};

/* fm_mqtt_t.due */
#define FM_MQTT_DUE_CONNECT 0x01u
#define FM_MQTT_DUE_PING 0x02u
#define FM_MQTT_DUE_SUBSCRIBE 0x04u
#define FM_MQTT_DUE_UNSUBSCRIBE 0x08u /* of the former chunk */
#define FM_MQTT_DUE_RELEASE 0x10u     /* the chunk held becomes the former one */
#define FM_MQTT_DUE_FETCH 0x20u

/* ---- fm_mqtt_rx.c ---- */

/* Read once and act on it. True: bytes moved. */
bool fm_mqtt_receive(fm_mqtt_t *mqtt);

/* ---- fm_mqtt_tx.c ---- */

/* Write what is due, once. True: bytes moved. */
bool fm_mqtt_transmit(fm_mqtt_t *mqtt);
/* Return a packet identifier that no packet in flight has. */
uint16_t fm_mqtt_new_id(fm_mqtt_t *mqtt);

/* ---- fm_mqtt_state.c ---- */

/* Enter a phase now. */
static inline void fm_mqtt_enter(fm_mqtt_t *mqtt, uint8_t phase) {
  mqtt->phase = phase;
  mqtt->phase_at_ms = mqtt->now_ms;
}
/* Close the connection. The next poll opens another one, unless fm_mqtt_break() has set a wait. */
void fm_mqtt_shut(fm_mqtt_t *mqtt);
/* Close a connection that failed, and reconnect after a back-off. */
void fm_mqtt_break(fm_mqtt_t *mqtt);
/* The broker refused the connection: close it, and reconnect after the longest back-off. */
void fm_mqtt_refuse(fm_mqtt_t *mqtt);
/* CONNACK, and then SUBACK, accepted the connection. */
void fm_mqtt_accepted(fm_mqtt_t *mqtt);
void fm_mqtt_subscribed(fm_mqtt_t *mqtt);
/* Drop the message in transit; close the connection when part of it was sent. */
void fm_mqtt_give_up(fm_mqtt_t *mqtt);
/* Tell the sink, which is set only during a poll, that the message being received will not be completed. */
void fm_mqtt_forget_incoming(fm_mqtt_t *mqtt);

#endif
