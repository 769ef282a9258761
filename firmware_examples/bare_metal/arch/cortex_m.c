/* SPDX-License-Identifier: Apache-2.0 */
#include "cortex_m.h"

#include "line.h"
#include "memory.h"

#define SYS_WRITE0 4u
#define STACKED_PC 6u

int main(void);
void fault_report(const uint32_t *stacked);

void cortex_m_log(void *user, const char *line) {
  (void)user;
#if FEDMOTE_SEMIHOSTING
  const char *const parts[2] = {line, "\n"};
  for (uint32_t i = 0u; i < 2u; i++) {
    register uint32_t operation __asm("r0") = SYS_WRITE0;
    register const char *text __asm("r1") = parts[i];
    __asm volatile("bkpt 0xAB" : "+r"(operation) : "r"(text) : "memory");
  }
#else
  (void)line;
#endif
}

void cortex_m_stop(void) {
  cortex_m_interrupts_off();
  for (;;) {
    cortex_m_sleep();
  }
}

/* `stacked`: r0-r3, r12, lr, pc and psr of what was interrupted. */
__attribute__((used)) void fault_report(const uint32_t *stacked) {
  line_t line;
  if (stacked != 0) {
    line_begin(&line, "fault hard pc=");
    line_hex(&line, stacked[STACKED_PC]);
  } else {
    line_begin(&line, "fault stack");
  }
  cortex_m_log(0, line.text);
  cortex_m_stop();
}

__attribute__((naked)) void fault_handler(void) {
  /* If the stack is full, there is no room for a report, and maybe no frame. So start at the stack's top again. */
  __asm volatile("mrs r0, msp\n\t"
                 "ldr r1, =__stack_start\n\t"
                 "cmp r0, r1\n\t"
                 "bhs 1f\n\t"
                 "movs r0, #0\n\t"
                 "1: ldr r2, =__stack_start + 256\n\t"
                 "cmp r0, r2\n\t"
                 "bhs 2f\n\t"
                 "ldr r2, =__stack_end\n\t"
                 "msr msp, r2\n\t"
                 "2: ldr r1, =fault_report\n\t"
                 "bx r1\n\t"
                 ".ltorg");
}

void reset_handler(void) {
  memory_init();
  (void)main();
  cortex_m_stop();
}
