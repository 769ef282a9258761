/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

void systick_handler(void);
void uart0_rx_handler(void);
void uart0_tx_handler(void);

#endif
