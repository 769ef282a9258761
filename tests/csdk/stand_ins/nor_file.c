/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L
#include "nor_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool write_at(int fd, size_t offset, const void *bytes, size_t size) {
  return pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size;
}

static bool blank(int fd, size_t offset, size_t size) {
  unsigned char block[NOR_BLOCK];
  bool done = true;
  memset(block, 0xFF, sizeof block);
  for (size_t at = 0u; done && (at < size); at += NOR_BLOCK) {
    done = write_at(fd, offset + at, block, NOR_BLOCK);
  }
  return done;
}

static int flash(void) {
  static int fd = -1;
  const char *path = getenv("STAND_IN_FLASH");
  if ((fd < 0) && (path != NULL)) {
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if ((fd >= 0) && (lseek(fd, 0, SEEK_END) != (off_t)NOR_SIZE) && !blank(fd, 0u, NOR_SIZE)) {
      fd = -1;
    }
  }
  return fd;
}

static bool inside(size_t offset, size_t size) { return (size <= NOR_SIZE) && (offset <= (NOR_SIZE - size)); }

bool nor_read(size_t offset, void *out, size_t size) {
  return inside(offset, size) && (pread(flash(), out, size, (off_t)offset) == (ssize_t)size);
}

bool nor_program(size_t offset, const void *bytes, size_t size, size_t unit) {
  bool done = inside(offset, size) && ((offset % unit) == 0u) && ((size % unit) == 0u);
  for (size_t i = 0u; done && (i < size); i++) {
    unsigned char now = 0u;
    done = nor_read(offset + i, &now, 1u) && (now == 0xFFu);
  }
  return done && write_at(flash(), offset, bytes, size);
}

bool nor_erase(size_t offset, size_t size) {
  return inside(offset, size) && ((offset % NOR_BLOCK) == 0u) && ((size % NOR_BLOCK) == 0u) &&
         blank(flash(), offset, size);
}
