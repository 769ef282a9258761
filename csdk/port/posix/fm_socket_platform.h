/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX, for csdk/port/socket/fm_socket_tcp.c. */
#ifndef FM_SOCKET_PLATFORM_H
#define FM_SOCKET_PLATFORM_H

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#define FM_SOCKET(name) name
#define FM_SOCKET_POLL(event) POLL##event
#define FM_SOCKET_SEND_FLAGS MSG_NOSIGNAL

static inline bool fm_socket_configure(int fd) {
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return (fcntl(fd, F_SETFL, O_NONBLOCK) == 0) && (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
}

static inline void fm_socket_sleep(uint32_t wait_ms) { (void)poll(NULL, 0u, (int)wait_ms); }

#endif
