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

static fm_status_t tty_open(void *self) {
  fm_posix_tty_t *tty = (fm_posix_tty_t *)self;
  fm_status_t status = (tty->fd >= 0) ? FM_OK : FM_ERR_LINK;
  if ((tty->path != NULL) && (tty->fd < 0)) {
    struct termios mode;
    const speed_t speed = speed_of(tty->baud);
    tty->fd = open(tty->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if ((speed != B0) && (tty->fd >= 0) && (tcgetattr(tty->fd, &mode) == 0)) {
      cfmakeraw(&mode);
      mode.c_cflag |= CLOCAL | CREAD;
      mode.c_cflag &= ~(tcflag_t)CRTSCTS;
      if ((cfsetispeed(&mode, speed) == 0) && (cfsetospeed(&mode, speed) == 0) &&
          (tcsetattr(tty->fd, TCSANOW, &mode) == 0)) {
        status = FM_OK;
      }
    }
    if (status != FM_OK) {
      tty_close(tty);
    }
  }
  return status;
}

static int32_t tty_read(void *self, uint8_t *out, uint32_t size) {
  const fm_posix_tty_t *tty = (const fm_posix_tty_t *)self;
  const ssize_t got = read(tty->fd, out, size);
  int32_t result = (int32_t)got;
  if (got < 0) {
    /* EIO: a pseudo-terminal whose other end nobody has open yet */
    result = ((errno == EAGAIN) || (errno == EINTR) || (errno == EIO)) ? 0 : -1;
  }
  return result;
}

static int32_t tty_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_posix_tty_t *tty = (fm_posix_tty_t *)self;
  const ssize_t sent = write(tty->fd, bytes, size);
  int32_t result = (int32_t)sent;
  if (sent < 0) {
    result = ((errno == EAGAIN) || (errno == EINTR) || (errno == EIO)) ? 0 : -1;
  }
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
