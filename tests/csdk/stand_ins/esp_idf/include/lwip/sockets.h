/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for lwIP's header of this name, whose functions are named as this system's. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
