/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP stream of csdk/port/socket, by its name for Zephyr. */
#ifndef FM_ZEPHYR_TCP_H
#define FM_ZEPHYR_TCP_H

#include "fm_socket_tcp.h"

typedef fm_socket_tcp_t fm_zephyr_tcp_t;
#define fm_zephyr_tcp_init fm_socket_tcp_init
#define fm_zephyr_tcp_wait fm_socket_tcp_wait

#endif
