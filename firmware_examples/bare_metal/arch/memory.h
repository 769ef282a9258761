/* SPDX-License-Identifier: Apache-2.0 */
/* What C expects of memory before main(): .data filled, .bss cleared. The symbols are the linker script's. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

extern uint32_t __data_load[];
extern uint32_t __data_start[];
extern uint32_t __data_end[];
extern uint32_t __bss_start[];
extern uint32_t __bss_end[];

static inline void memory_init(void) {
  const uint32_t *from = __data_load;
  for (uint32_t *to = __data_start; to < __data_end; to++) {
    *to = *from;
    from++;
  }
  for (uint32_t *to = __bss_start; to < __bss_end; to++) {
    *to = 0u;
  }
}

#endif
