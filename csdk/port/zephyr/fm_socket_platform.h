/* SPDX-License-Identifier: Apache-2.0 */
/* Zephyr, for csdk/port/socket/fm_socket_tcp.c. */
#ifndef FM_SOCKET_PLATFORM_H
#define FM_SOCKET_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#include <zephyr/kernel.h>
#include <zephyr/net/socket.h>

#define FM_SOCKET(name) zsock_##name
#define FM_SOCKET_POLL(event) ZSOCK_POLL##event
#define FM_SOCKET_SEND_FLAGS 0 /* no signals here */

static inline bool fm_socket_configure(int fd) { return zsock_fcntl(fd, ZVFS_F_SETFL, ZVFS_O_NONBLOCK) == 0; }

static inline void fm_socket_sleep(uint32_t wait_ms) { (void)k_msleep((int32_t)wait_ms); }

#endif
