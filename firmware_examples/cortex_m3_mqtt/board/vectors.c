/* SPDX-License-Identifier: Apache-2.0 */
/* The vector table of the mps2-an385 (Arm AN385, "Interrupts"), as far as it is used: Ethernet is number 13. */
#include "cortex_m.h"
#include "interrupts.h"

typedef struct {
  cortex_m_vectors_t core;
  cortex_m_handler_t external[32];
} vectors_t;

__attribute__((section(".vectors"), used)) static const vectors_t vectors = {
    .core =
        {
            .stack = __stack_end,
            .system = {reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
                       fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
                       fault_handler, fault_handler, systick_handler},
        },
    .external = {fault_handler, fault_handler,    fault_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler,    fault_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, ethernet_handler, fault_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler,    fault_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler,    fault_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler},
};
