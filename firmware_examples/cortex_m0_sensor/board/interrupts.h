/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

void uart0_handler(void);
void timer0_handler(void);

#endif
