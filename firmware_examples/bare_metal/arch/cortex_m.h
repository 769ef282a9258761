/* SPDX-License-Identifier: Apache-2.0 */
/* What all Cortex-M (ARMv6-M and up) share: the way from reset to main(), faults, sleep, and the debugger's console. */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include <stdint.h>

typedef void (*cortex_m_handler_t)(void);

extern uint32_t __stack_end[]; /* from the linker script */

/* Fill .data and .bss, call main(). */
void reset_handler(void);

/* Log `fault hard pc=<address>` and stop. The handler of every interrupt that the board does not use. */
void fault_handler(void);

/* Write one line to the debugger (semihosting). Does nothing when built without FEDMOTE_SEMIHOSTING, because the
 * instruction is a fault unless a debugger is attached. */
void cortex_m_log(void *user, const char *line);

/* Interrupts off, then: sleep until one is pending; let pending ones run. */
static inline void cortex_m_interrupts_off(void) { __asm volatile("cpsid i" ::: "memory"); }
static inline void cortex_m_interrupts_on(void) { __asm volatile("cpsie i\n\tisb" ::: "memory"); }
static inline void cortex_m_sleep(void) { __asm volatile("dsb\n\twfi" ::: "memory"); }

void cortex_m_stop(void);

#endif
