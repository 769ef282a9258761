/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_zephyr_tcp.h"

#include <errno.h>
#include <string.h>
#include <zephyr/kernel.h>
#include <zephyr/net/socket.h>

static void tcp_close(void *self) {
  fm_zephyr_tcp_t *tcp = (fm_zephyr_tcp_t *)self;
  if (tcp->fd >= 0) {
    (void)zsock_close(tcp->fd);
  }
  tcp->fd = -1;
  tcp->connecting = false;
  tcp->full = false;
}

/* Not an error: the stack has no room, or nothing arrived. Zephyr says ENOBUFS or ENOMEM when it is out of packets. */
static int32_t moved(ssize_t bytes) {
  int32_t result = (int32_t)bytes;
  if (bytes < 0) {
    const bool wait =
        (errno == EAGAIN) || (errno == EWOULDBLOCK) || (errno == EINTR) || (errno == ENOBUFS) || (errno == ENOMEM);
    result = wait ? 0 : -1;
  }
  return result;
}

static fm_status_t start(fm_zephyr_tcp_t *tcp, const struct zsock_addrinfo *address) {
  fm_status_t status = FM_ERR_LINK;
  tcp->fd = zsock_socket(address->ai_family, SOCK_STREAM, IPPROTO_TCP);
  if ((tcp->fd >= 0) && (zsock_fcntl(tcp->fd, ZVFS_F_SETFL, ZVFS_O_NONBLOCK) == 0)) {
    if (zsock_connect(tcp->fd, address->ai_addr, address->ai_addrlen) == 0) {
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

/* The connection attempt ended when the socket is writable, in failure if it has an error. */
static fm_status_t proceed(fm_zephyr_tcp_t *tcp) {
  struct zsock_pollfd line = {.fd = tcp->fd, .events = ZSOCK_POLLOUT};
  fm_status_t status = FM_AGAIN;
  if (zsock_poll(&line, 1, 0) != 0) {
    int error = 0;
    socklen_t size = sizeof error;
    status = FM_ERR_LINK;
    if (((line.revents & ZSOCK_POLLOUT) != 0) && ((line.revents & (ZSOCK_POLLERR | ZSOCK_POLLNVAL)) == 0) &&
        (zsock_getsockopt(tcp->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0) && (error == 0)) {
      tcp->connecting = false;
      status = FM_OK;
    }
  }
  return status;
}

static fm_status_t tcp_open(void *self) {
  fm_zephyr_tcp_t *tcp = (fm_zephyr_tcp_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (tcp->fd >= 0) {
    status = proceed(tcp);
  } else {
    struct zsock_addrinfo hints;
    struct zsock_addrinfo *found = NULL;
    (void)memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (zsock_getaddrinfo(tcp->host, tcp->port, &hints, &found) == 0) {
      status = start(tcp, found);
      zsock_freeaddrinfo(found);
    }
  }
  if ((status != FM_OK) && (status != FM_AGAIN)) {
    tcp_close(tcp);
  }
  return status;
}

static int32_t tcp_read(void *self, uint8_t *out, uint32_t size) {
  const fm_zephyr_tcp_t *tcp = (const fm_zephyr_tcp_t *)self;
  const ssize_t got = zsock_recv(tcp->fd, out, size, ZSOCK_MSG_DONTWAIT);
  return (got == 0) ? -1 : moved(got); /* 0: the peer closed */
}

static int32_t tcp_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_zephyr_tcp_t *tcp = (fm_zephyr_tcp_t *)self;
  const int32_t sent = moved(zsock_send(tcp->fd, bytes, size, ZSOCK_MSG_DONTWAIT));
  tcp->full = (sent >= 0) && ((uint32_t)sent < size);
  return sent;
}

void fm_zephyr_tcp_init(fm_zephyr_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tcp_open, tcp_read, tcp_write, tcp_close};
  (void)memset(tcp, 0, sizeof *tcp);
  tcp->host = host;
  tcp->port = port;
  tcp->fd = -1;
  stream->api = &api;
  stream->self = tcp;
}

void fm_zephyr_tcp_wait(const fm_zephyr_tcp_t *tcp, uint32_t wait_ms) {
  if (tcp->fd < 0) {
    (void)k_msleep((int32_t)wait_ms);
  } else {
    const bool writable = tcp->connecting || tcp->full;
    struct zsock_pollfd line = {.fd = tcp->fd,
                                .events = (short)(writable ? (ZSOCK_POLLIN | ZSOCK_POLLOUT) : ZSOCK_POLLIN)};
    (void)zsock_poll(&line, 1, (int)wait_ms);
  }
}
