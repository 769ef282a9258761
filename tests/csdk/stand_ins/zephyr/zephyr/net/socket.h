/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for Zephyr's header of this name: its functions, flags and structs are this system's own sockets. */
#ifndef STAND_IN_SOCKET_H
#define STAND_IN_SOCKET_H

#include <stddef.h>
#include <sys/types.h>

typedef unsigned int socklen_t;
struct sockaddr;

enum { SOCK_STREAM = 1, IPPROTO_TCP = 6, SOL_SOCKET = 1, SO_ERROR = 4 };
enum { ZVFS_F_SETFL = 4, ZVFS_O_NONBLOCK = 0x4000 };
enum { ZSOCK_MSG_DONTWAIT = 0x40 };
enum { ZSOCK_POLLIN = 1, ZSOCK_POLLOUT = 4, ZSOCK_POLLERR = 8, ZSOCK_POLLHUP = 0x10, ZSOCK_POLLNVAL = 0x20 };

struct zsock_addrinfo {
  struct zsock_addrinfo *ai_next;
  int ai_flags;
  int ai_family;
  int ai_socktype;
  int ai_protocol;
  socklen_t ai_addrlen;
  struct sockaddr *ai_addr;
  char *ai_canonname;
};

struct zsock_pollfd {
  int fd;
  short events;
  short revents;
};

int zsock_socket(int family, int type, int proto);
int zsock_close(int sock);
int zsock_connect(int sock, const struct sockaddr *addr, socklen_t addrlen);
ssize_t zsock_send(int sock, const void *buf, size_t len, int flags);
ssize_t zsock_recv(int sock, void *buf, size_t max_len, int flags);
int zsock_fcntl(int sock, int cmd, int flags);
int zsock_poll(struct zsock_pollfd *fds, int nfds, int timeout);
int zsock_getsockopt(int sock, int level, int optname, void *optval, socklen_t *optlen);
int zsock_getaddrinfo(const char *host, const char *service, const struct zsock_addrinfo *hints,
                      struct zsock_addrinfo **res);
void zsock_freeaddrinfo(struct zsock_addrinfo *ai);

#endif
