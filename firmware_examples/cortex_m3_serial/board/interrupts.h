/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupts of the mps2-an385 (Arm AN385, "Interrupts") that this board uses. */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

void systick_handler(void);
void uart0_rx_handler(void);
void uart0_tx_handler(void);

#define SYSTICK_HANDLER systick_handler
#define IRQ_HANDLERS [0] = uart0_rx_handler, [1] = uart0_tx_handler

#endif
