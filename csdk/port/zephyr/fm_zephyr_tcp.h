/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection of Zephyr's as a byte stream. Nothing blocks but open(), which looks up the host's name: give an
 * address where that matters. The first address found is tried. */
#ifndef FM_ZEPHYR_TCP_H
#define FM_ZEPHYR_TCP_H

#include "fedmote/fm_link.h"

typedef struct {
  const char *host; /* name or address; the caller's */
  const char *port; /* decimal */
  int fd;           /* to wait on; -1: closed */
  bool connecting;  /* wait for writability */
  bool full;        /* the last write was cut short: wait for writability */
} fm_zephyr_tcp_t;

/* Fill in *stream. Nothing is opened yet. */
void fm_zephyr_tcp_init(fm_zephyr_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream);

/* Sleep until the connection has something to do, at most `wait_ms`. */
void fm_zephyr_tcp_wait(const fm_zephyr_tcp_t *tcp, uint32_t wait_ms);

#endif
