/* SPDX-License-Identifier: Apache-2.0 */
/* What all RV32 harts in machine mode share: interrupts, sleep, and the debugger's console. */
#ifndef RISCV32_H
#define RISCV32_H

#include <stdint.h>

#define RISCV32_TIMER 7u /* interrupts, as mcause names them and as bits of mie */
#define RISCV32_EXTERNAL 11u

/* One line to the debugger (semihosting). Nothing when built without FEDMOTE_SEMIHOSTING: without a debugger attached
 * it is a trap. */
void riscv32_log(void *user, const char *line);

void riscv32_enable(uint32_t interrupt); /* in mie; they come once they are on */

/* Interrupts off, then: sleep until one is pending; let pending ones run. */
static inline void riscv32_interrupts_off(void) { __asm volatile("csrci mstatus, 8" ::: "memory"); }
static inline void riscv32_interrupts_on(void) { __asm volatile("csrsi mstatus, 8" ::: "memory"); }
static inline void riscv32_sleep(void) { __asm volatile("wfi" ::: "memory"); }

void riscv32_stop(void);

#endif
