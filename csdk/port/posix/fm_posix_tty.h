/* SPDX-License-Identifier: Apache-2.0 */
/* A serial line (or any other descriptor, such as one end of a pseudo-terminal) as a byte stream that never blocks. */
#ifndef FM_POSIX_TTY_H
#define FM_POSIX_TTY_H

#include "fedmote/fm_link.h"

typedef struct {
  const char *path; /* NULL: fd was handed in and stays open */
  uint32_t baud;
  int fd;    /* to wait on; -1: closed */
  bool full; /* the last write was cut short: wait for writability */
} fm_posix_tty_t;

/* Fill in *stream. `path`: opened raw at `baud` (a standard rate; others fail in open) by the first poll; NULL: use
 * `fd`, which the caller opened non-blocking and keeps. */
void fm_posix_tty_init(fm_posix_tty_t *tty, const char *path, uint32_t baud, int fd, fm_stream_t *stream);

#endif
