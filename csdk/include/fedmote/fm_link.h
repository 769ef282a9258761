/* SPDX-License-Identifier: Apache-2.0 */
/* The interface of a link: messages in and out, in pieces, so that no message must fit into RAM.
 *
 * fedmote has two links (fm_mqtt.h, fm_serial.h). For CAN, LoRa, BLE or a vendor's MQTT stack, fill an fm_link_api_t of
 * your own. No function may block or allocate, and none is called from an interrupt. There is no re-entry: a link calls
 * the sink only from inside its poll(), and the sink never calls the link.
 */
#ifndef FM_LINK_H
#define FM_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_status.h"

/* A message to send: `head` bytes from memory, then `body_size` bytes pulled through `read`.
 *
 * The caller owns it. head and the data behind read() must stay valid and unchanged until the link's sending() is false
 * again. The link may read any part any number of times, in any order; so it can retransmit without a buffer of its
 * own. send() copies the struct itself. */
typedef struct {
  const uint8_t *head;
  uint32_t head_size;
  uint32_t body_size; /* 0: no body, read may be NULL */
  /* Copy `size` bytes of the body from `offset` into `out`. Must not block. Anything but FM_OK aborts the message. */
  fm_status_t (*read)(void *user, uint32_t offset, uint8_t *out, uint32_t size);
  void *user;
} fm_outgoing_t;

typedef enum {
  FM_AT_MOST_ONCE = 0, /* MQTT QoS 0: sent once the stream has taken it */
  FM_AT_LEAST_ONCE = 1 /* MQTT QoS 1: sent once the peer has acknowledged it; repeated after a reconnect */
} fm_delivery_t;

/* Where a link delivers a received message: begin, data any number of times, end. Bytes are valid only during the call.
 */
typedef struct {
  void *user;
  void (*begin)(void *user, uint32_t total); /* a message of `total` bytes starts */
  void (*data)(void *user, const uint8_t *bytes, uint32_t size);
  void (*end)(void *user, bool complete); /* false: the rest will not arrive; discard the message */
} fm_sink_t;

typedef struct {
  /* Do a bounded amount of work: connect, read, write, keep alive, retransmit. `now_ms`: any monotonic clock in
   * milliseconds; it may wrap. Lowers *wait_ms, and never raises it, to the time after which it must be called again
   * even if no byte arrives. A lost connection is not an error: the link reconnects by itself. Returns FM_OK, or
   * FM_ERR_REFUSED when only the application can help, for example with another password (it still retries, slowly). */
  fm_status_t (*poll)(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms);
  /* Return 0 while there is no connection, otherwise a number that is new for each connection. It skips 0 when it
   * wraps. */
  uint32_t (*connection)(const void *self);
  /* Accept one message for sending. FM_OK: accepted. FM_AGAIN: the previous one is not sent yet, or there is no
   * connection. FM_ERR_BUFFER: too large for this link. */
  fm_status_t (*send)(void *self, const fm_outgoing_t *message, fm_delivery_t delivery);
  /* Return true while the link still reads the memory of the last accepted message. When the connection breaks, an
   * FM_AT_MOST_ONCE message in transit is dropped. */
  bool (*sending)(const void *self);
  /* Drop the message in transit, so that its memory is free. The peer discards what it received of it. */
  void (*abort)(void *self);
  /* Ask for a model chunk, which then arrives as a ModelChunk message. NULL: the link cannot, and the client sends a
   * ChunkRequest instead. FM_AGAIN: not now. A second call before the chunk arrives replaces the first. */
  fm_status_t (*fetch)(void *self, uint32_t version, uint32_t index);
} fm_link_api_t;

typedef struct {
  const fm_link_api_t *api;
  void *self;
} fm_link_t;

/* A byte stream below a link: TCP, TLS, a tty, a UART. Called from one thread; no function may block. */
typedef struct {
  /* Open, or continue to open. FM_OK: open. FM_AGAIN: in progress, call again. Any other result: failed, and the stream
   * is closed. */
  fm_status_t (*open)(void *self);
  /* Return the bytes read, 1 to size; 0: none now; -1: broken, and the link will call close(). */
  int32_t (*read)(void *self, uint8_t *out, uint32_t size);
  /* Return the bytes accepted, 0 to size; -1: broken. `bytes` are valid only during the call: copy what is accepted. */
  int32_t (*write)(void *self, const uint8_t *bytes, uint32_t size);
  void (*close)(void *self); /* idempotent */
} fm_stream_api_t;

typedef struct {
  const fm_stream_api_t *api;
  void *self;
} fm_stream_t;

#endif
