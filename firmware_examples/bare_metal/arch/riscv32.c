/* SPDX-License-Identifier: Apache-2.0 */
#include "riscv32.h"

#define SYS_WRITE0 4u

void riscv32_log(void *user, const char *line) {
  (void)user;
#if FEDMOTE_SEMIHOSTING
  const char *const parts[2] = {line, "\n"};
  for (uint32_t i = 0u; i < 2u; i++) {
    register uint32_t operation __asm("a0") = SYS_WRITE0;
    register const char *text __asm("a1") = parts[i];
    /* These three, in full length and on one page, are what a debugger knows as its call. */
    __asm volatile(".balign 16\n\t"
                   ".option push\n\t"
                   ".option norvc\n\t"
                   "slli zero, zero, 0x1f\n\t"
                   "ebreak\n\t"
                   "srai zero, zero, 7\n\t"
                   ".option pop"
                   : "+r"(operation)
                   : "r"(text)
                   : "memory");
  }
#else
  (void)line;
#endif
}

void riscv32_enable(uint32_t interrupt) { __asm volatile("csrs mie, %0" ::"r"(1u << interrupt)); }

void riscv32_stop(void) {
  riscv32_interrupts_off();
  for (;;) {
    riscv32_sleep();
  }
}
