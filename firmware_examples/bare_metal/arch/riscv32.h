/* SPDX-License-Identifier: Apache-2.0 */
/* What all RV32 harts in machine mode share: interrupts, sleep, and the debugger's console. */
#ifndef RISCV32_H
#define RISCV32_H

#include <stdint.h>

#define RISCV32_TIMER 7u /* interrupts, as mcause names them and as bits of mie */
#define RISCV32_EXTERNAL 11u

/* Write one line to the debugger (semihosting). Does nothing when built without FEDMOTE_SEMIHOSTING, because the
 * instruction is a trap unless a debugger is attached. */
void riscv32_log(void *user, const char *line);

void riscv32_enable(uint32_t interrupt); /* in mie; it comes once interrupts are on */

/* Interrupts off, then: sleep until one is pending; let pending ones run. */
static inline void riscv32_interrupts_off(void) { __asm volatile("csrci mstatus, 8" ::: "memory"); }
static inline void riscv32_interrupts_on(void) { __asm volatile("csrsi mstatus, 8" ::: "memory"); }
static inline void riscv32_sleep(void) { __asm volatile("wfi" ::: "memory"); }

void riscv32_stop(void);

#endif
