/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection as a byte stream, over the BSD sockets of POSIX, Zephyr or ESP-IDF. What differs between them is in
 * fm_socket_platform.h, which each of their folders has.
 *
 * No call blocks but open(), which looks up the host's name: give an address where that matters. It tries the host's
 * addresses one after the other. getaddrinfo() takes memory from the heap until the connection is established. */
#ifndef FM_SOCKET_TCP_H
#define FM_SOCKET_TCP_H

#include "fedmote/fm_link.h"

typedef struct {
  const char *host; /* name or address; the caller's */
  const char *port; /* decimal */
  int fd;           /* to wait on; -1: closed */
  bool connecting;  /* wait for writability */
  bool full;        /* the last write was cut short: wait for writability */
  void *addresses;  /* of host, while connecting: the system's struct addrinfo */
  void *next;       /* the address to try next */
} fm_socket_tcp_t;

/* Fill in *stream. Nothing is opened yet. */
void fm_socket_tcp_init(fm_socket_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream);

/* Sleep until the connection has something to do, at most `wait_ms`. */
void fm_socket_tcp_wait(const fm_socket_tcp_t *tcp, uint32_t wait_ms);

#endif
