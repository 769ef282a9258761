/* SPDX-License-Identifier: Apache-2.0 */
/* ESP-IDF, for csdk/port/socket/fm_socket_tcp.c. */
#ifndef FM_SOCKET_PLATFORM_H
#define FM_SOCKET_PLATFORM_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/poll.h>
#include <unistd.h>

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "lwip/netdb.h"
#include "lwip/sockets.h"

#define FM_SOCKET(name) name
#define FM_SOCKET_POLL(event) POLL##event
#define FM_SOCKET_SEND_FLAGS MSG_NOSIGNAL

static inline bool fm_socket_configure(int fd) {
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

static inline void fm_socket_sleep(uint32_t wait_ms) {
  vTaskDelay(pdMS_TO_TICKS(wait_ms) + 1u); /* less than a tick would be no sleep at all */
}

#endif
