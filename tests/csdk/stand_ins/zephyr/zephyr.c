/* SPDX-License-Identifier: Apache-2.0 */
/* What the stand-ins for Zephyr's headers declare, on POSIX. Their structs and numbers are Zephyr's; here they are
 * taken for this system's. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../nor_file.h"
#include "zephyr/drivers/flash.h"
#include "zephyr/kernel.h"
#include "zephyr/logging/log.h"
#include "zephyr/random/random.h"
#include "zephyr/storage/flash_map.h"

#define PROGRAM_SIZE 8u
#define PARTITION_OFFSET 0x8000

uint32_t k_uptime_get_32(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)(((uint64_t)now.tv_sec * 1000u) + ((uint64_t)now.tv_nsec / 1000000u));
}

int32_t k_msleep(int32_t ms) {
  (void)poll(NULL, 0u, ms);
  return 0;
}

uint32_t sys_rand32_get(void) { return k_uptime_get_32() ^ ((uint32_t)getpid() << 16); }

void stand_in_log(const char *level, const char *format, ...) {
  va_list values;
  va_start(values, format);
  (void)printf("<%s> ", level);
  (void)vprintf(format, values);
  (void)printf("\n");
  (void)fflush(stdout);
  va_end(values);
}

/* ---- sockets; zephyr/net/socket.h is not included, since its names are also this system's ---- */

struct zsock_addrinfo {
  struct zsock_addrinfo *ai_next;
  int ai_flags, ai_family, ai_socktype, ai_protocol;
  socklen_t ai_addrlen;
  struct sockaddr *ai_addr;
  char *ai_canonname;
};

int zsock_socket(int family, int type, int proto);
int zsock_close(int sock);
int zsock_connect(int sock, const struct sockaddr *addr, socklen_t addrlen);
ssize_t zsock_send(int sock, const void *buf, size_t len, int flags);
ssize_t zsock_recv(int sock, void *buf, size_t max_len, int flags);
int zsock_fcntl(int sock, int cmd, int flags);
int zsock_poll(struct pollfd *fds, int nfds, int timeout);
int zsock_getsockopt(int sock, int level, int optname, void *optval, socklen_t *optlen);
int zsock_getaddrinfo(const char *host, const char *service, const struct zsock_addrinfo *hints,
                      struct zsock_addrinfo **res);
void zsock_freeaddrinfo(struct zsock_addrinfo *ai);

int zsock_socket(int family, int type, int proto) { return socket(family, type, proto); }
int zsock_close(int sock) { return close(sock); }
int zsock_connect(int sock, const struct sockaddr *addr, socklen_t addrlen) { return connect(sock, addr, addrlen); }

ssize_t zsock_send(int sock, const void *buf, size_t len, int flags) {
  return send(sock, buf, len, flags | MSG_NOSIGNAL);
}

ssize_t zsock_recv(int sock, void *buf, size_t max_len, int flags) { return recv(sock, buf, max_len, flags); }
int zsock_poll(struct pollfd *fds, int nfds, int timeout) { return poll(fds, (nfds_t)nfds, timeout); }

int zsock_fcntl(int sock, int cmd, int flags) {
  return ((cmd == 4) && (flags == 0x4000)) ? fcntl(sock, F_SETFL, O_NONBLOCK) : -1;
}

int zsock_getsockopt(int sock, int level, int optname, void *optval, socklen_t *optlen) {
  return getsockopt(sock, level, optname, optval, optlen);
}

int zsock_getaddrinfo(const char *host, const char *service, const struct zsock_addrinfo *hints,
                      struct zsock_addrinfo **res) {
  const struct addrinfo wanted = {.ai_socktype = hints->ai_socktype};
  struct addrinfo *found = NULL;
  const int result = getaddrinfo(host, service, &wanted, &found);
  if (result == 0) {
    struct zsock_addrinfo *first = calloc(1u, sizeof *first + sizeof(struct sockaddr_storage));
    first->ai_family = found->ai_family;
    first->ai_addr = (struct sockaddr *)&first[1];
    first->ai_addrlen = found->ai_addrlen;
    memcpy(first->ai_addr, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    *res = first;
  }
  return result;
}

void zsock_freeaddrinfo(struct zsock_addrinfo *ai) { free(ai); }

/* ---- one partition, in the middle of a flash ---- */

int flash_area_open(uint8_t id, const struct flash_area **fa) {
  static const struct flash_area area = {
      .fa_id = stand_in_storage_partition, .fa_off = PARTITION_OFFSET, .fa_size = NOR_SIZE};
  *fa = (id == stand_in_storage_partition) ? &area : NULL;
  return ((*fa != NULL) && (getenv("STAND_IN_FLASH") != NULL)) ? 0 : -ENOENT;
}

int flash_area_read(const struct flash_area *fa, off_t off, void *dst, size_t len) {
  (void)fa;
  return nor_read((size_t)off, dst, len) ? 0 : -EIO;
}

int flash_area_write(const struct flash_area *fa, off_t off, const void *src, size_t len) {
  (void)fa;
  return nor_program((size_t)off, src, len, PROGRAM_SIZE) ? 0 : -EIO;
}

int flash_area_erase(const struct flash_area *fa, off_t off, size_t len) {
  (void)fa;
  return nor_erase((size_t)off, len) ? 0 : -EIO;
}

uint32_t flash_area_align(const struct flash_area *fa) {
  (void)fa;
  return PROGRAM_SIZE;
}

uint8_t flash_area_erased_val(const struct flash_area *fa) {
  (void)fa;
  return 0xFFu;
}

const struct device *flash_area_get_device(const struct flash_area *fa) { return fa->fa_dev; }

int flash_get_page_info_by_offs(const struct device *dev, off_t offset, struct flash_pages_info *info) {
  (void)dev;
  info->start_offset = offset - (offset % (off_t)NOR_BLOCK);
  info->size = NOR_BLOCK;
  info->index = (uint32_t)((size_t)offset / NOR_BLOCK);
  return (offset >= PARTITION_OFFSET) ? 0 : -EINVAL;
}
