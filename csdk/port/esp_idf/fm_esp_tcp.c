/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_esp_tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "lwip/netdb.h"
#include "lwip/sockets.h"

static void tcp_close(void *self) {
  fm_esp_tcp_t *tcp = (fm_esp_tcp_t *)self;
  if (tcp->fd >= 0) {
    (void)close(tcp->fd);
  }
  tcp->fd = -1;
  tcp->connecting = false;
  tcp->full = false;
}

/* Not an error: nothing arrived, or the stack has no room (lwIP says ENOMEM when it is out of memory for a while). */
static int32_t moved(ssize_t bytes) {
  int32_t result = (int32_t)bytes;
  if (bytes < 0) {
    const bool wait = (errno == EAGAIN) || (errno == EWOULDBLOCK) || (errno == EINTR) || (errno == ENOMEM);
    result = wait ? 0 : -1;
  }
  return result;
}

/* Wait for the socket to be readable, or only writable where that is what is waited for. 1: it is, 0: the time is over.
 */
static int wait_for(int fd, bool readable, bool writable, uint32_t wait_ms) {
  fd_set reads;
  fd_set writes;
  struct timeval time = {.tv_sec = (time_t)(wait_ms / 1000u), .tv_usec = (suseconds_t)((wait_ms % 1000u) * 1000u)};
  FD_ZERO(&reads);
  FD_ZERO(&writes);
  if (readable) {
    FD_SET(fd, &reads);
  }
  if (writable) {
    FD_SET(fd, &writes);
  }
  return select(fd + 1, &reads, &writes, NULL, &time);
}

static fm_status_t start(fm_esp_tcp_t *tcp, const struct addrinfo *address) {
  fm_status_t status = FM_ERR_LINK;
  const int on = 1;
  tcp->fd = socket(address->ai_family, SOCK_STREAM, IPPROTO_TCP);
  if ((tcp->fd >= 0) && (fcntl(tcp->fd, F_SETFL, O_NONBLOCK) == 0)) {
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

/* The connection attempt ended when the socket is writable, in failure if it has an error. */
static fm_status_t proceed(fm_esp_tcp_t *tcp) {
  fm_status_t status = FM_AGAIN;
  const int ready = wait_for(tcp->fd, false, true, 0u);
  if (ready != 0) {
    int error = 0;
    socklen_t size = sizeof error;
    status = FM_ERR_LINK;
    if ((ready > 0) && (getsockopt(tcp->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0) && (error == 0)) {
      tcp->connecting = false;
      status = FM_OK;
    }
  }
  return status;
}

static fm_status_t tcp_open(void *self) {
  fm_esp_tcp_t *tcp = (fm_esp_tcp_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (tcp->fd >= 0) {
    status = proceed(tcp);
  } else {
    struct addrinfo hints;
    struct addrinfo *found = NULL;
    (void)memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if ((getaddrinfo(tcp->host, tcp->port, &hints, &found) == 0) && (found != NULL)) {
      status = start(tcp, found);
      freeaddrinfo(found);
    }
  }
  if ((status != FM_OK) && (status != FM_AGAIN)) {
    tcp_close(tcp);
  }
  return status;
}

static int32_t tcp_read(void *self, uint8_t *out, uint32_t size) {
  const fm_esp_tcp_t *tcp = (const fm_esp_tcp_t *)self;
  const ssize_t got = recv(tcp->fd, out, size, MSG_DONTWAIT);
  return (got == 0) ? -1 : moved(got); /* 0: the peer closed */
}

static int32_t tcp_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_esp_tcp_t *tcp = (fm_esp_tcp_t *)self;
  const int32_t sent = moved(send(tcp->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL));
  tcp->full = (sent >= 0) && ((uint32_t)sent < size);
  return sent;
}

void fm_esp_tcp_init(fm_esp_tcp_t *tcp, const char *host, const char *port, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tcp_open, tcp_read, tcp_write, tcp_close};
  (void)memset(tcp, 0, sizeof *tcp);
  tcp->host = host;
  tcp->port = port;
  tcp->fd = -1;
  stream->api = &api;
  stream->self = tcp;
}

void fm_esp_tcp_wait(const fm_esp_tcp_t *tcp, uint32_t wait_ms) {
  if (tcp->fd < 0) {
    vTaskDelay(pdMS_TO_TICKS(wait_ms) + 1u); /* less than a tick would be no sleep at all */
  } else {
    (void)wait_for(tcp->fd, true, tcp->connecting || tcp->full, wait_ms);
  }
}
