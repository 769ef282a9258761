/* SPDX-License-Identifier: Apache-2.0 */
/* From reset to main(), and from a trap to the board's interrupt handler or the report of a fault. */
#include "interrupts.h"
#include "line.h"
#include "memory.h"
#include "riscv32.h"

#define IS_INTERRUPT 0x80000000u

int main(void);
void _start(void);
void start_c(void);
void trap_handler(void);

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
    interrupt_handler(cause & ~IS_INTERRUPT);
  } else {
    trap_report(cause);
  }
}

__attribute__((used)) void start_c(void) {
  memory_init();
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
