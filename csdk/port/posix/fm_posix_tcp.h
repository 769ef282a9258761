/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection as a byte stream. Nothing blocks but open(), which looks up the host's name: give an address where
 * that matters. Its addresses are tried one after the other. getaddrinfo() takes memory from the heap until the
 * connection stands. */
#ifndef FM_POSIX_TCP_H
#define FM_POSIX_TCP_H

#include "fedmote/fm_link.h"

struct addrinfo;

typedef struct {
  const char *host;           /* name or address; the caller's */
  const char *port;           /* decimal */
  int fd;                     /* to wait on; -1: closed */
  bool connecting;            /* wait for writability */
  bool full;                  /* the last write was cut short: wait for writability */
  struct addrinfo *addresses; /* of host, while connecting */
  struct addrinfo *next;      /* to try */
} fm_posix_tcp_t;

/* Fill in *stream. Nothing is opened yet. */
void fm_posix_tcp_init(fm_posix_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream);

#endif
