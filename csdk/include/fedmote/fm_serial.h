/* SPDX-License-Identifier: Apache-2.0 */
/* Serial link: messages over a line that flips, loses and duplicates bytes. COBS frames, CRC-32, retransmission by byte
 * offset. Symmetric: the same code runs on the device and at the server's end of the cable. docs/wire.md, "Serial",
 * specifies format and procedure.
 *
 * Use: fm_serial_init() fills an fm_link_t, which goes into fm_client_config_t.link before fm_client_init(); then
 * fm_client_poll() runs both. A UART's receive ring should hold 4 x (payload + 14) bytes, which the peer may send
 * between two polls. Poll at least every keep_alive_ms of the peer, also while training.
 *
 * The link needs no buffer for retransmission: it reads lost bytes again from the message (fm_outgoing_t). What arrives
 * goes into the sink in order. Both kinds of delivery are acknowledged. When the connection breaks, an FM_AT_LEAST_ONCE
 * message starts over on the next one; the other is dropped. There is no fetch: the client sends a ChunkRequest.
 */
#ifndef FM_SERIAL_H
#define FM_SERIAL_H

#include "fedmote/fm_config.h"
#include "fedmote/fm_link.h"

#ifdef __cplusplus
extern "C" {
#endif

#if (FM_SERIAL_PAYLOAD < 16) || (FM_SERIAL_PAYLOAD > 240)
#error "FM_SERIAL_PAYLOAD must be 16 to 240"
#endif
#if (FM_SERIAL_WINDOW < 1) || (FM_SERIAL_WINDOW > 7)
#error "FM_SERIAL_WINDOW must be 1 to 7"
#endif

/* Room for one decoded incoming frame and one encoded outgoing frame: 505 bytes, or 57 with payloads of 16. */
#define FM_SERIAL_RX_BUFFER (FM_SERIAL_PAYLOAD + 11)
#define FM_SERIAL_TX_BUFFER (FM_SERIAL_PAYLOAD + 14)
#define FM_SERIAL_MIN_BUFFER (FM_SERIAL_RX_BUFFER + FM_SERIAL_TX_BUFFER)

#define FM_SERIAL_MAX_MESSAGE 0xFFFFFFu /* bytes of one message; send() returns FM_ERR_BUFFER for more */

/* The caller owns the struct and all it points to; both must outlive the link. */
typedef struct {
  fm_stream_t stream;
  uint32_t seed;          /* of connection tags; must differ between the two ends, should differ between starts */
  uint32_t retransmit_ms; /* 1 to 8000, 0: 500. Initial time to an acknowledgement; then it is measured */
  uint32_t keep_alive_ms; /* 1 to 2^28, 0: 5000. A probe is sent when no frame has arrived for this long; the
                             connection is lost after 4 times as long */
  uint8_t *buffer;
  uint32_t buffer_size; /* at least FM_SERIAL_MIN_BUFFER */
} fm_serial_config_t;

/* The application may set any to 0. */
typedef struct {
  uint32_t bytes_in;
  uint32_t bytes_out;
  uint32_t frames_in; /* with a correct CRC */
  uint32_t frames_out;
  uint32_t retransmits; /* times the sender went back */
  uint32_t crc_errors;  /* frames with a wrong CRC, or too short or too long; an overlong one counts at its zero byte */
  uint32_t connections; /* that came up */
  uint32_t lost;        /* that ended, for any reason */
} fm_serial_counters_t;

/* Unstuffs the frame that arrives. All zero: ready for the first byte. */
typedef struct {
  uint32_t count; /* its first code byte and the bytes decoded; 0: nothing has arrived */
  uint32_t left;  /* bytes to the next code byte */
} fm_cobs_decoder_t;

/* One link. Public so that its size is known; read the counters, touch nothing else. Numbers are words, also small
 * ones, and what is used most comes first: short instructions reach words, and only the first 32. */
typedef struct {
  uint32_t phase;
  uint32_t now_ms;
  uint32_t since_ms;     /* start of the wait for the next timed action */
  uint32_t due;          /* flags for the next frame's first byte, and whether a frame is due at all */
  struct {               /* all zero when a connection begins */
    uint32_t acked;      /* the peer has everything of `out` before this offset */
    uint32_t next;       /* offset to send next */
    uint32_t high;       /* offset up to which was sent at least once */
    uint32_t timed_ms;   /* a measurement of the time to an acknowledgement began then */
    uint32_t timed;      /*   it ends when this offset is acknowledged; 0: none is running */
    uint32_t base;       /* sequence number of out's offset 0, modulo 2^16 */
    uint32_t in_next;    /* sequence number expected next, modulo 2^16 */
    uint32_t peer_tag;   /* in frames to the peer; 0: unknown */
    uint32_t epochs;     /* as in the first byte: of go-backs, and of the peer's last segment */
    uint32_t doubled_ms; /* time to retransmission since time ran out; 0: something was acknowledged since */
  } on;
  uint32_t tag;        /* in frames to this end */
  uint32_t expiry_ms;  /* time to retransmission, before doubling */
  uint32_t backoff_ms; /* time to opening or greeting again */
  uint32_t last_in_ms; /* a frame of this connection arrived */
  uint32_t tx_size;    /* of the frame being written */
  uint32_t tx_sent;
  uint32_t most;      /* payload that both ends take */
  uint32_t segment;   /* payload of the next data frame */
  uint32_t out_state; /* nothing, a message, or the notice that it was cancelled */
  uint32_t out_end;   /* bytes to send of it: 4 of length, head, body */
  uint32_t in_busy;   /* between begin and end */
  uint32_t in_left;   /* of the message being received */
  const fm_serial_config_t *config;
  const fm_sink_t *sink; /* during poll */
  uint32_t out_survives; /* it starts over on a new connection */
  fm_cobs_decoder_t rx;
  fm_serial_counters_t counters;
  uint32_t connection; /* number of the last connection that came up */
  uint32_t random;
  fm_outgoing_t out;
} fm_serial_t;

/* Check the config and fill in *link. The first poll opens the stream. A poll reads at most 256 bytes and writes at
 * most 8 times. Stack: one read of 32 bytes. FM_ERR_ARGUMENT: a pointer is NULL or a time is out of range.
 * FM_ERR_BUFFER: buffer_size is under FM_SERIAL_MIN_BUFFER. */
fm_status_t fm_serial_init(fm_serial_t *serial, const fm_serial_config_t *config, fm_link_t *link);

/* Tell the peer, if the stream accepts that at once, and close the stream. A message at FM_AT_LEAST_ONCE is kept for
 * the next connection. The next poll opens the stream again. Do not call from a callback. */
void fm_serial_close(fm_serial_t *serial);

#ifdef __cplusplus
}
#endif

#endif
