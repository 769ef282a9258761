/* SPDX-License-Identifier: Apache-2.0 */
/* The least a C test needs: CHECK(condition) counts, and check_report() tells. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

static unsigned check_passed, check_failed;

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (condition) {                                                                                                   \
      check_passed++;                                                                                                  \
    } else {                                                                                                           \
      check_failed++;                                                                                                  \
      (void)printf("%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);                               \
    }                                                                                                                  \
  } while (0)

/* Print the count; the value for main() to return. */
static inline int check_report(void) {
  (void)printf("%u passed, %u failed\n", check_passed, check_failed);
  return ((check_failed == 0u) && (check_passed != 0u)) ? 0 : 1;
}

#endif
