/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L
#include "fm_posix_tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void forget_addresses(fm_posix_tcp_t *tcp) {
  if (tcp->addresses != NULL) {
    freeaddrinfo(tcp->addresses);
  }
  tcp->addresses = NULL;
  tcp->next = NULL;
}

static void close_socket(fm_posix_tcp_t *tcp) {
  if (tcp->fd >= 0) {
    (void)close(tcp->fd);
  }
  tcp->fd = -1;
  tcp->connecting = false;
  tcp->full = false;
}

static void tcp_close(void *self) {
  fm_posix_tcp_t *tcp = (fm_posix_tcp_t *)self;
  close_socket(tcp);
  forget_addresses(tcp);
}

static fm_status_t start(fm_posix_tcp_t *tcp, const struct addrinfo *address) {
  fm_status_t status = FM_ERR_LINK;
  const int on = 1;
  tcp->fd = socket(address->ai_family, SOCK_STREAM, 0);
  if ((tcp->fd >= 0) && (fcntl(tcp->fd, F_SETFL, O_NONBLOCK) == 0) && (fcntl(tcp->fd, F_SETFD, FD_CLOEXEC) == 0)) {
    (void)setsockopt(tcp->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(tcp->fd, address->ai_addr, address->ai_addrlen) == 0) {
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

/* The connection attempt ended if the socket has a peer, failed if it has an error. */
static fm_status_t proceed(fm_posix_tcp_t *tcp) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  fm_status_t status = FM_ERR_LINK;
  if (getpeername(tcp->fd, (struct sockaddr *)&peer, &size) == 0) {
    tcp->connecting = false;
    status = FM_OK;
  } else {
    int error = 0;
    socklen_t length = sizeof error;
    if ((getsockopt(tcp->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0) && (error == 0)) {
      status = FM_AGAIN;
    }
  }
  return status;
}

/* One address of the host after the other: localhost is often ::1 first, where no broker may listen. */
static fm_status_t tcp_open(void *self) {
  fm_posix_tcp_t *tcp = (fm_posix_tcp_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (tcp->fd >= 0) {
    status = proceed(tcp);
  } else {
    struct addrinfo hints;
    (void)memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    forget_addresses(tcp);
    if (getaddrinfo(tcp->host, tcp->port, &hints, &tcp->addresses) != 0) {
      tcp->addresses = NULL;
    }
    tcp->next = tcp->addresses;
  }
  while ((status != FM_OK) && (status != FM_AGAIN) && (tcp->next != NULL)) {
    close_socket(tcp);
    status = start(tcp, tcp->next);
    tcp->next = tcp->next->ai_next;
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

static int32_t tcp_read(void *self, uint8_t *out, uint32_t size) {
  const fm_posix_tcp_t *tcp = (const fm_posix_tcp_t *)self;
  const ssize_t got = recv(tcp->fd, out, size, 0);
  int32_t result = (int32_t)got;
  if (got == 0) {
    result = -1; /* the peer closed */
  } else if (got < 0) {
    result = ((errno == EAGAIN) || (errno == EWOULDBLOCK) || (errno == EINTR)) ? 0 : -1;
  } else {
    /* bytes */
  }
  return result;
}

static int32_t tcp_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_posix_tcp_t *tcp = (fm_posix_tcp_t *)self;
  const ssize_t sent = send(tcp->fd, bytes, size, MSG_NOSIGNAL);
  int32_t result = (int32_t)sent;
  if (sent < 0) {
    result = ((errno == EAGAIN) || (errno == EWOULDBLOCK) || (errno == EINTR)) ? 0 : -1;
  }
  tcp->full = (result >= 0) && ((uint32_t)result < size);
  return result;
}

void fm_posix_tcp_init(fm_posix_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tcp_open, tcp_read, tcp_write, tcp_close};
  (void)memset(tcp, 0, sizeof *tcp);
  tcp->host = host;
  tcp->port = port;
  tcp->fd = -1;
  stream->api = &api;
  stream->self = tcp;
}
