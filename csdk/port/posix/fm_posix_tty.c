/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* cfmakeraw, CRTSCTS */
#include "fm_posix_tty.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static speed_t speed_of(uint32_t baud) {
  static const struct {
    uint32_t baud;
    speed_t speed;
  } known[] = {{9600u, B9600},     {19200u, B19200},   {38400u, B38400},   {57600u, B57600},
               {115200u, B115200}, {230400u, B230400}, {460800u, B460800}, {921600u, B921600}};
  speed_t speed = B0;
  for (uint32_t i = 0u; i < (sizeof known / sizeof known[0]); i++) {
    if (known[i].baud == baud) {
      speed = known[i].speed;
    }
  }
  return speed;
}

static void tty_close(void *self) {
  fm_posix_tty_t *tty = (fm_posix_tty_t *)self;
  if ((tty->path != NULL) && (tty->fd >= 0)) {
    (void)close(tty->fd);
    tty->fd = -1;
  }
  tty->full = false;
}

static bool make_raw(int fd, speed_t speed) {
  struct termios mode;
  bool done = false;
  if ((speed != B0) && (tcgetattr(fd, &mode) == 0)) {
    cfmakeraw(&mode);
    mode.c_cflag |= CLOCAL | CREAD;
    mode.c_cflag &= ~(tcflag_t)CRTSCTS;
    done = (cfsetispeed(&mode, speed) == 0) && (cfsetospeed(&mode, speed) == 0) && (tcsetattr(fd, TCSANOW, &mode) == 0);
  }
  return done;
}

static fm_status_t tty_open(void *self) {
  fm_posix_tty_t *tty = (fm_posix_tty_t *)self;
  if ((tty->path != NULL) && (tty->fd < 0)) {
    tty->fd = open(tty->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if ((tty->fd >= 0) && !make_raw(tty->fd, speed_of(tty->baud))) {
      tty_close(tty);
    }
  }
  return (tty->fd >= 0) ? FM_OK : FM_ERR_LINK;
}

/* Return the result of a call that failed: 0 to try again, -1 for a broken line. EIO means that the other end of a
 * pseudo-terminal is closed. It may open again, but a terminal opened by path is better opened anew. */
static int32_t nothing(const fm_posix_tty_t *tty) {
  const bool wait = (errno == EAGAIN) || (errno == EINTR) || ((errno == EIO) && (tty->path == NULL));
  return wait ? 0 : -1;
}

static int32_t tty_read(void *self, uint8_t *out, uint32_t size) {
  const fm_posix_tty_t *tty = (const fm_posix_tty_t *)self;
  const ssize_t got = read(tty->fd, out, size);
  int32_t result = (int32_t)got;
  if (got < 0) {
    result = nothing(tty);
  } else if ((got == 0) && (tty->path != NULL)) {
    result = -1; /* hung up */
  } else {
    /* bytes came */
  }
  return result;
}

static int32_t tty_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_posix_tty_t *tty = (fm_posix_tty_t *)self;
  const ssize_t sent = write(tty->fd, bytes, size);
  const int32_t result = (sent < 0) ? nothing(tty) : (int32_t)sent;
  tty->full = (result >= 0) && ((uint32_t)result < size);
  return result;
}

void fm_posix_tty_init(fm_posix_tty_t *tty, const char *path, uint32_t baud, int fd, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tty_open, tty_read, tty_write, tty_close};
  (void)memset(tty, 0, sizeof *tty);
  tty->path = path;
  tty->baud = baud;
  tty->fd = (path == NULL) ? fd : -1;
  stream->api = &api;
  stream->self = tty;
}
