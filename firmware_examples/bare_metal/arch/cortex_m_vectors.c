/* SPDX-License-Identifier: Apache-2.0 */
/* The vector table. The board's interrupts.h says which interrupts it uses, all others are faults. */
#include "cortex_m.h"
#include "interrupts.h"

#define IRQS 32

#ifndef SYSTICK_HANDLER
#define SYSTICK_HANDLER fault_handler
#endif

typedef struct {
  uint32_t *stack;
  cortex_m_handler_t system[15]; /* reset, NMI, hard fault, ..., SysTick */
  cortex_m_handler_t external[IRQS];
} vectors_t;

#pragma GCC diagnostic ignored "-Woverride-init" /* the board's entries replace the default */
__attribute__((section(".vectors"), used)) static const vectors_t vectors = {
    .stack = __stack_end,
    .system = {[0] = reset_handler, [1 ... 13] = fault_handler, [14] = SYSTICK_HANDLER},
    .external = {[0 ... IRQS - 1] = fault_handler, IRQ_HANDLERS},
};
