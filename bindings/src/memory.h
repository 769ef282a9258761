/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and a link in memory, so that the real C code runs without I/O: in tests, and as virtual devices. */
#ifndef FMB_MEMORY_H
#define FMB_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_link.h"

/* A byte stream whose other end is the caller. `in` is valid for the duration of one call. The caller empties
 * `out`. */
typedef struct {
  const uint8_t *in;
  uint32_t in_left;
  uint32_t budget; /* bytes that may still be read before the caller looks at the results */
  uint8_t *out;
  uint32_t out_size;
  uint32_t out_fill;
  bool connected; /* set by the caller: whether open() succeeds */
  bool open;
} fmb_pipe_t;

fm_stream_t fmb_pipe_stream(fmb_pipe_t *pipe);

/* A stream that can be cut. While `away`, the stream below is closed and does not open. */
typedef struct {
  fm_stream_t below;
  bool away;
  bool open;
} fmb_gate_t;

fm_stream_t fmb_gate_stream(fmb_gate_t *gate);
void fmb_gate_cut(fmb_gate_t *gate);

/* A sink that keeps whole messages, each behind its length as 4 bytes in the machine's order. */
typedef struct {
  uint8_t *bytes;
  uint32_t size;
  uint32_t fill;     /* of complete messages with their lengths */
  uint32_t messages; /* complete */
  uint32_t at;       /* of the message being received */
  uint32_t total;
  bool skipping;
  uint32_t oversized; /* messages that did not fit */
} fmb_inbox_t;

fm_sink_t fmb_inbox_sink(fmb_inbox_t *inbox);
/* Forget the complete messages; the one being received stays. */
void fmb_inbox_clear(fmb_inbox_t *inbox);

/* A link of whole messages whose other end is the caller. It holds one message in each direction. */
typedef struct {
  const uint8_t *in; /* delivered in the next poll; NULL: none */
  uint32_t in_size;
  uint32_t connection; /* 0: not connected */
  uint32_t connections;
  bool fetch_by_request; /* offer no fetch(), so that the client sends a ChunkRequest */
  bool fetching;
  uint32_t fetch_version;
  uint32_t fetch_index;
  bool sending;
  fm_outgoing_t outgoing;
  uint8_t delivery;
} fmb_mailbox_t;

fm_link_t fmb_mailbox_link(fmb_mailbox_t *mailbox);
void fmb_mailbox_connect(fmb_mailbox_t *mailbox);
void fmb_mailbox_disconnect(fmb_mailbox_t *mailbox);
/* Return the bytes of the message that waits for the caller; 0: none waits. */
uint32_t fmb_mailbox_waiting(const fmb_mailbox_t *mailbox);
/* Copy the waiting message, of fmb_mailbox_waiting() bytes, and give its memory back to the client. */
fm_status_t fmb_mailbox_take(fmb_mailbox_t *mailbox, uint8_t *out);

#endif
