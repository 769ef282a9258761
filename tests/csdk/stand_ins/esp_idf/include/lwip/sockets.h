/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for lwIP's header of this name, whose functions are named as this system's. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
