/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_socket_platform.h" /* first: it chooses what the system's headers declare */

#include <errno.h>
#include <string.h>

#include "fm_socket_tcp.h"

typedef struct FM_SOCKET(addrinfo) address_t;

static void forget_addresses(fm_socket_tcp_t *tcp) {
  if (tcp->addresses != NULL) {
    FM_SOCKET(freeaddrinfo)((address_t *)tcp->addresses);
  }
  tcp->addresses = NULL;
  tcp->next = NULL;
}

static void close_socket(fm_socket_tcp_t *tcp) {
  if (tcp->fd >= 0) {
    (void)FM_SOCKET(close)(tcp->fd);
  }
  tcp->fd = -1;
  tcp->connecting = false;
  tcp->full = false;
}

static void tcp_close(void *self) {
  fm_socket_tcp_t *tcp = (fm_socket_tcp_t *)self;
  close_socket(tcp);
  forget_addresses(tcp);
}

static fm_status_t start(fm_socket_tcp_t *tcp, const address_t *address) {
  fm_status_t status = FM_ERR_LINK;
  tcp->fd = FM_SOCKET(socket)(address->ai_family, SOCK_STREAM, IPPROTO_TCP);
  if ((tcp->fd >= 0) && fm_socket_configure(tcp->fd)) {
    if (FM_SOCKET(connect)(tcp->fd, address->ai_addr, address->ai_addrlen) == 0) {
      status = FM_OK;
    } else if (errno == EINPROGRESS) {
      tcp->connecting = true;
      status = FM_AGAIN;
    } else {
      /* refused at once */
    }
  }
  return status;
}

/* The attempt to connect is over when the socket is writable. It failed if the socket has an error. */
static fm_status_t proceed(fm_socket_tcp_t *tcp) {
  struct FM_SOCKET(pollfd) line = {.fd = tcp->fd, .events = FM_SOCKET_POLL(OUT)};
  fm_status_t status = FM_AGAIN;
  const int ready = FM_SOCKET(poll)(&line, 1, 0);
  if ((ready != 0) && !((ready < 0) && (errno == EINTR))) { /* a signal says nothing about the attempt */
    int error = 0;
    socklen_t size = sizeof error;
    status = FM_ERR_LINK;
    if (((line.revents & FM_SOCKET_POLL(OUT)) != 0) &&
        ((line.revents & (FM_SOCKET_POLL(ERR) | FM_SOCKET_POLL(NVAL))) == 0) &&
        (FM_SOCKET(getsockopt)(tcp->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0) && (error == 0)) {
      tcp->connecting = false;
      status = FM_OK;
    }
  }
  return status;
}

static void look_up(fm_socket_tcp_t *tcp) {
  address_t hints;
  address_t *found = NULL;
  (void)memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  forget_addresses(tcp);
  if (FM_SOCKET(getaddrinfo)(tcp->host, tcp->port, &hints, &found) == 0) {
    tcp->addresses = found;
    tcp->next = found;
  }
}

/* One address of the host after the other: localhost is often ::1 first, where no broker may listen. */
static fm_status_t tcp_open(void *self) {
  fm_socket_tcp_t *tcp = (fm_socket_tcp_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (tcp->fd < 0) {
    look_up(tcp);
  } else {
    status = tcp->connecting ? proceed(tcp) : FM_OK;
  }
  while ((status != FM_OK) && (status != FM_AGAIN) && (tcp->next != NULL)) {
    const address_t *address = (const address_t *)tcp->next;
    close_socket(tcp);
    tcp->next = address->ai_next;
    status = start(tcp, address);
  }
  if (status == FM_OK) {
    forget_addresses(tcp);
  } else if (status != FM_AGAIN) {
    tcp_close(tcp);
  } else {
    /* in progress */
  }
  return status;
}

/* Bytes moved; 0: nothing arrived, or the stack has no room for now; -1: the connection broke. Zephyr reports ENOBUFS
 * or ENOMEM when it is out of packets, lwIP ENOMEM. */
static int32_t moved(ssize_t bytes) {
  int32_t result = (int32_t)bytes;
  if (bytes < 0) {
    const bool wait =
        (errno == EAGAIN) || (errno == EWOULDBLOCK) || (errno == EINTR) || (errno == ENOBUFS) || (errno == ENOMEM);
    result = wait ? 0 : -1;
  }
  return result;
}

static int32_t tcp_read(void *self, uint8_t *out, uint32_t size) {
  const fm_socket_tcp_t *tcp = (const fm_socket_tcp_t *)self;
  const ssize_t got = FM_SOCKET(recv)(tcp->fd, out, size, 0);
  return (got == 0) ? -1 : moved(got); /* 0: the peer closed */
}

static int32_t tcp_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_socket_tcp_t *tcp = (fm_socket_tcp_t *)self;
  const int32_t sent = moved(FM_SOCKET(send)(tcp->fd, bytes, size, FM_SOCKET_SEND_FLAGS));
  tcp->full = (sent >= 0) && ((uint32_t)sent < size);
  return sent;
}

void fm_socket_tcp_init(fm_socket_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tcp_open, tcp_read, tcp_write, tcp_close};
  (void)memset(tcp, 0, sizeof *tcp);
  tcp->host = host;
  tcp->port = port;
  tcp->fd = -1;
  stream->api = &api;
  stream->self = tcp;
}

void fm_socket_tcp_wait(const fm_socket_tcp_t *tcp, uint32_t wait_ms) {
  if (tcp->fd < 0) {
    fm_socket_sleep(wait_ms);
  } else {
    const int events = (tcp->connecting || tcp->full) ? (FM_SOCKET_POLL(IN) | FM_SOCKET_POLL(OUT)) : FM_SOCKET_POLL(IN);
    struct FM_SOCKET(pollfd) line = {.fd = tcp->fd, .events = (short)events};
    (void)FM_SOCKET(poll)(&line, 1, (int)wait_ms);
  }
}
