/* SPDX-License-Identifier: Apache-2.0 */
/* Opens fm_bearssl.h's stream on one descriptor after the other, says "hello" and sends back what comes, until the
 * stream breaks; prints what happens. Usage: tls_client HOST BUFFER PIECE WITHOUT FD... PIECE: most bytes that the
 * stream below moves in a call. WITHOUT: random, time or nothing. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "anchors.h"
#include "check.h"
#include "fm_bearssl.h"

typedef struct {
  uint32_t piece;
  int *fds; /* left to open */
  int left;
  int fd;
} below_t;

static fm_status_t below_open(void *self) {
  below_t *below = (below_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (below->left > 0) {
    below->fd = *below->fds;
    below->fds++;
    below->left--;
    status = FM_OK;
  }
  return status;
}

static int32_t moved(ssize_t count) {
  return (count > 0) ? (int32_t)count : (((count < 0) && (errno == EAGAIN)) ? 0 : -1);
}

static int32_t below_read(void *self, uint8_t *out, uint32_t size) {
  below_t *below = (below_t *)self;
  return moved(read(below->fd, out, (size < below->piece) ? size : below->piece));
}

static int32_t below_write(void *self, const uint8_t *bytes, uint32_t size) {
  below_t *below = (below_t *)self;
  return moved(write(below->fd, bytes, (size < below->piece) ? size : below->piece));
}

static void below_close(void *self) {
  below_t *below = (below_t *)self;
  if (below->fd >= 0) {
    (void)close(below->fd);
  }
  below->fd = -1;
}

static bool give_random(void *user, uint8_t *out, uint32_t size) {
  return (strcmp((const char *)user, "random") != 0) && (getentropy(out, size) == 0);
}

static bool give_time(void *user, uint32_t *seconds) {
  *seconds = (uint32_t)time(NULL);
  return strcmp((const char *)user, "time") != 0;
}

static void tell(void *user, int error) {
  (void)user;
  (void)printf("error %d\n", error);
}

static void wait_for(const below_t *below, bool writing) {
  struct pollfd one = {below->fd, (short)(writing ? (POLLIN | POLLOUT) : POLLIN), 0};
  (void)poll(&one, 1, 10);
}

/* All of it, or false. */
static bool send_all(const fm_stream_t *stream, const below_t *below, const uint8_t *bytes, uint32_t size) {
  uint32_t sent = 0u;
  int32_t count = 0;
  while ((sent < size) && (count >= 0)) {
    count = stream->api->write(stream->self, &bytes[sent], size - sent);
    if (count > 0) {
      sent += (uint32_t)count;
    } else if (count == 0) {
      wait_for(below, true);
    } else {
      /* broken */
    }
  }
  return sent == size;
}

static void echo(const fm_stream_t *stream, const below_t *below) {
  uint8_t bytes[300];
  bool going = send_all(stream, below, (const uint8_t *)"hello", 5u);
  while (going) {
    const int32_t count = stream->api->read(stream->self, bytes, sizeof bytes);
    if (count == 0) {
      /* What write() took may still wait inside, and read() moves it on. */
      wait_for(below, false);
    } else {
      going = (count > 0) && send_all(stream, below, bytes, (uint32_t)count);
    }
  }
  (void)printf("ended\n");
}

static void check_arguments(const fm_bearssl_config_t *good, fm_bearssl_t *tls, fm_stream_t *stream) {
  static char longest[257];
  fm_bearssl_config_t config = *good;
  CHECK(fm_bearssl_init(NULL, &config, stream) == FM_ERR_ARGUMENT);
  CHECK(fm_bearssl_init(tls, NULL, stream) == FM_ERR_ARGUMENT);
  CHECK(fm_bearssl_init(tls, &config, NULL) == FM_ERR_ARGUMENT);
  config.buffer_size = FM_BEARSSL_BUFFER_LEAST - 1u;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_BUFFER);
  config.buffer = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.random = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.unix_time = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.anchors = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.anchor_count = 0u;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.below.api = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config = *good;
  config.host = NULL;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  config.host = "";
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  (void)memset(longest, 'a', 256u);
  config.host = longest;
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_ERR_ARGUMENT);
  longest[255] = '\0';
  CHECK(fm_bearssl_init(tls, &config, stream) == FM_OK);
  CHECK(fm_bearssl_init(tls, good, stream) == FM_OK);
}

int main(int argc, char **argv) {
  static const fm_stream_api_t api = {below_open, below_read, below_write, below_close};
  static uint8_t buffer[FM_BEARSSL_BUFFER_ANY];
  static fm_bearssl_t tls;
  static int fds[8];
  below_t below = {(argc > 3) ? (uint32_t)atoi(argv[3]) : 0u, fds, 0, -1};
  fm_bearssl_config_t config = {.below = {&api, &below},
                                .anchors = anchors,
                                .anchor_count = ANCHOR_COUNT,
                                .random = give_random,
                                .unix_time = give_time,
                                .failed = tell,
                                .buffer = buffer};
  fm_stream_t stream;
  if ((argc < 5) || (argc > 13)) {
    return 2;
  }
  config.host = argv[1];
  config.buffer_size = (uint32_t)atoi(argv[2]);
  config.user = argv[4];
  for (int i = 5; i < argc; i++) {
    fds[i - 5] = atoi(argv[i]);
    below.left++;
  }
  check_arguments(&config, &tls, &stream);
  if (fm_bearssl_init(&tls, &config, &stream) != FM_OK) {
    return 2;
  }
  while (below.left > 0) {
    fm_status_t status = stream.api->open(stream.self);
    while (status == FM_AGAIN) {
      wait_for(&below, false);
      status = stream.api->open(stream.self);
    }
    (void)printf((status == FM_OK) ? "open\n" : "refused\n");
    if (status == FM_OK) {
      echo(&stream, &below);
    }
    stream.api->close(stream.self);
  }
  CHECK(stream.api->open(stream.self) == FM_ERR_LINK); /* nothing left below */
  return check_report();
}
