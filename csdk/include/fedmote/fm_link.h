/* SPDX-License-Identifier: Apache-2.0 */
/* What a link is: messages in and out, each as begin, data, end, so that none need ever be in RAM whole.
 *
 * fedmote brings two (fm_mqtt.h, fm_serial.h); supply your own for CAN, LoRa, BLE or a vendor's MQTT stack by filling
 * fm_link_api_t. Nothing here blocks, allocates, or is called from an interrupt. Nothing re-enters: a link calls
 * the sink only from inside its poll(), and the sink never calls the link back.
 */
#ifndef FM_LINK_H
#define FM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_status.h"

/* A message to send: `head` bytes from memory, then `body_size` bytes pulled through `read`.
 *
 * Ownership: the caller's. head and whatever read() reads stay valid and unchanged until the link's sending() is
 * false again; the link may read any part any number of times, in any order (that is how it retransmits
 * without a buffer of its own). The struct itself is copied by send(). */
typedef struct {
  const uint8_t *head;
  uint32_t head_size;
  uint32_t body_size; /* 0: no body, read may be NULL */
  /* Copy `size` bytes of the body from `offset` into `out`. Must not block. Anything but FM_OK aborts the message. */
  fm_status_t (*read)(void *user, uint32_t offset, uint8_t *out, uint32_t size);
  void *user;
} fm_outgoing_t;

typedef enum {
  FM_AT_MOST_ONCE = 0, /* MQTT QoS 0: done when handed to the stream */
  FM_AT_LEAST_ONCE = 1 /* MQTT QoS 1: done when the peer acknowledged; survives reconnects */
} fm_delivery_t;

/* Where a link puts what it receives. Bytes are valid during the call only. */
typedef struct {
  void *user;
  void (*begin)(void *user, uint32_t total); /* a message of `total` bytes starts */
  void (*data)(void *user, const uint8_t *bytes, uint32_t size);
  void (*end)(void *user, bool complete); /* false: the rest will not come; forget it */
} fm_sink_t;

typedef struct {
  /* Do a bounded amount of work: connect, read, write, keep alive, retransmit. `now_ms` is any monotonic
   * millisecond clock and may wrap. Lowers *wait_ms (never raises it) to the time after which it wants to be called
   * again even if no byte arrives. Link trouble is not an error here: it reconnects by itself. Returns FM_OK, or
   * FM_ERR_REFUSED when retrying is pointless without the application's doing (it still retries, slowly). */
  fm_status_t (*poll)(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms);
  /* 0 while there is no connection, otherwise a number that is new for each connection. Wraps past 0. */
  uint32_t (*connection)(const void *self);
  /* Take one message. FM_OK: taken. FM_AGAIN: still sending the one before, or not connected. FM_ERR_BUFFER: too large
   * for this link. */
  fm_status_t (*send)(void *self, const fm_outgoing_t *message, fm_delivery_t delivery);
  /* True while the message taken last still needs its memory. An FM_AT_MOST_ONCE message under way is given up when the
   * connection breaks. */
  bool (*sending)(const void *self);
  /* Give up the message under way, so that its memory is free. What the peer got of it is discarded there. */
  void (*abort)(void *self);
  /* Ask for a model chunk, which then arrives as a ModelChunk message. NULL: the link has no such means, and the client
   * sends a ChunkRequest instead. FM_AGAIN: not now. A second call before the chunk came replaces the first. */
  fm_status_t (*fetch)(void *self, uint32_t version, uint32_t index);
} fm_link_api_t;

typedef struct {
  const fm_link_api_t *api;
  void *self;
} fm_link_t;

/* A byte stream below a link: TCP, TLS, a tty, a UART. One thread; nothing blocks. */
typedef struct {
  /* Open, or go on opening. FM_OK: open. FM_AGAIN: in progress, call again. Else: failed, close() was done. */
  fm_status_t (*open)(void *self);
  /* Bytes read (1 to size), 0: none now, -1: broken (the link closes it). */
  int32_t (*read)(void *self, uint8_t *out, uint32_t size);
  /* Bytes taken (0 to size), -1: broken. `bytes` are valid during the call only: copy what is taken. */
  int32_t (*write)(void *self, const uint8_t *bytes, uint32_t size);
  void (*close)(void *self); /* idempotent */
} fm_stream_api_t;

typedef struct {
  const fm_stream_api_t *api;
  void *self;
} fm_stream_t;

#endif
