/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection as a byte stream, non-blocking but for the look-up of the host's name in open(). */
#ifndef FM_POSIX_TCP_H
#define FM_POSIX_TCP_H

#include "fedmote/fm_link.h"

typedef struct {
  const char *host; /* name or address; the caller's */
  const char *port; /* decimal */
  int fd;           /* to wait on; -1: closed */
  bool connecting;  /* wait for writability */
  bool full;        /* the last write was cut short: wait for writability */
} fm_posix_tcp_t;

/* Fill in *stream. Nothing is opened yet. */
void fm_posix_tcp_init(fm_posix_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream);

#endif
