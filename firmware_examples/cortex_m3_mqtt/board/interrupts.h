/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

void systick_handler(void);
void ethernet_handler(void);

#endif
