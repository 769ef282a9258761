/* SPDX-License-Identifier: Apache-2.0 */
#include "riscv32.h"

#include "line.h"

#define SYS_WRITE0 4u
#define IS_INTERRUPT 0x80000000u

extern uint32_t __data_load[];
extern uint32_t __data_start[];
extern uint32_t __data_end[];
extern uint32_t __bss_start[];
extern uint32_t __bss_end[];

int main(void);
void _start(void);
void start_c(void);
void trap_handler(void);

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

static void trap_report(uint32_t cause) {
  uint32_t pc;
  line_t line;
  __asm volatile("csrr %0, mepc" : "=r"(pc));
  line_begin(&line, "fault trap cause=");
  line_number(&line, cause);
  line_text(&line, " pc=");
  line_hex(&line, pc);
  riscv32_log(0, line.text);
  riscv32_stop();
}

__attribute__((interrupt("machine"), aligned(4))) void trap_handler(void) {
  uint32_t cause;
  __asm volatile("csrr %0, mcause" : "=r"(cause));
  if ((cause & IS_INTERRUPT) != 0u) {
    riscv32_interrupt(cause & ~IS_INTERRUPT);
  } else {
    trap_report(cause);
  }
}

__attribute__((used)) void start_c(void) {
  const uint32_t *from = __data_load;
  for (uint32_t *to = __data_start; to < __data_end; to++) {
    *to = *from;
    from++;
  }
  for (uint32_t *to = __bss_start; to < __bss_end; to++) {
    *to = 0u;
  }
  (void)main();
  riscv32_stop();
}

/* Every hart but the first sleeps for ever. */
__attribute__((naked, section(".start"))) void _start(void) {
  __asm volatile("csrr t0, mhartid\n"
                 "1:\n\t"
                 "beqz t0, 2f\n\t"
                 "wfi\n\t"
                 "j 1b\n"
                 "2:\n\t"
                 ".option push\n\t"
                 ".option norelax\n\t"
                 "la gp, __global_pointer$\n\t"
                 ".option pop\n\t"
                 "la sp, __stack_end\n\t"
                 "la t0, trap_handler\n\t"
                 "csrw mtvec, t0\n\t"
                 "j start_c");
}
