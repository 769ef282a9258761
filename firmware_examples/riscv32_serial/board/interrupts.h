/* SPDX-License-Identifier: Apache-2.0 */
/* What riscv32_start.c calls when an interrupt arrives. */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

#include <stdint.h>

/* cause: as mcause names it, RISCV32_TIMER or RISCV32_EXTERNAL. */
void interrupt_handler(uint32_t cause);

#endif
