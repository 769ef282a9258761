/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers of the links have in common: a stream that opens, breaks and takes as it likes, and a sink that
 * checks how it is called. A fuzzer's own struct begins with a fuzz_t. */
#ifndef FUZZ_LINK_H
#define FUZZ_LINK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedmote/fm_link.h"

#define HOLDS(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

#define SEED_SIZE 4u
#define IDLE_POLLS 4u

typedef struct {
  uint32_t random;
  bool open;   /* the stream */
  bool inside; /* a message, as the sink saw it */
  uint32_t total;
  uint32_t got;
} fuzz_t;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 0 to below - 1. */
static inline uint32_t fuzz_draw(fuzz_t *fuzz, uint32_t below) {
  fuzz->random = (fuzz->random * 1664525u) + 1013904223u;
  return (fuzz->random >> 16) % below;
}

/* Read every byte, for the sanitizer to see. */
static inline void fuzz_touch(const uint8_t *bytes, uint32_t size) {
  static volatile uint8_t sink;
  for (uint32_t i = 0u; i < size; i++) {
    sink = (uint8_t)(sink ^ bytes[i]);
  }
}

static inline fm_status_t fuzz_open(void *self) {
  fuzz_t *fuzz = self;
  const uint32_t how = fuzz_draw(fuzz, 8u);
  HOLDS(!fuzz->open);
  fuzz->open = how > 1u;
  return fuzz->open ? FM_OK : ((how == 1u) ? FM_AGAIN : FM_ERR_LINK);
}

static inline void fuzz_close(void *self) { ((fuzz_t *)self)->open = false; }

static inline void fuzz_sink_begin(void *user, uint32_t total) {
  fuzz_t *fuzz = user;
  HOLDS(!fuzz->inside);
  fuzz->inside = true;
  fuzz->total = total;
  fuzz->got = 0u;
}

static inline void fuzz_sink_data(void *user, const uint8_t *bytes, uint32_t size) {
  fuzz_t *fuzz = user;
  HOLDS(fuzz->inside && (size != 0u) && (size <= (fuzz->total - fuzz->got)));
  fuzz_touch(bytes, size);
  fuzz->got += size;
}

static inline void fuzz_sink_end(void *user, bool complete) {
  fuzz_t *fuzz = user;
  HOLDS(fuzz->inside && (!complete || (fuzz->got == fuzz->total)));
  fuzz->inside = false;
}

static inline fm_sink_t fuzz_sink(fuzz_t *fuzz) {
  const fm_sink_t sink = {fuzz, fuzz_sink_begin, fuzz_sink_data, fuzz_sink_end};
  return sink;
}

#endif
