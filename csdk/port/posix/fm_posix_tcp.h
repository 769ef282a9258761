/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP stream of csdk/port/socket, by its name for POSIX. */
#ifndef FM_POSIX_TCP_H
#define FM_POSIX_TCP_H

#include "fm_socket_tcp.h"

typedef fm_socket_tcp_t fm_posix_tcp_t;
#define fm_posix_tcp_init fm_socket_tcp_init
#define fm_posix_tcp_wait fm_socket_tcp_wait

#endif
