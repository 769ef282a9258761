/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupts of the nRF51 (reference manual 3.0, "Instantiation") that this board uses. */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

void uart0_handler(void);
void timer0_handler(void);

#define IRQ_HANDLERS [2] = uart0_handler, [8] = timer0_handler

#endif
