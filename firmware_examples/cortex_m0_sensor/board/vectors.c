/* SPDX-License-Identifier: Apache-2.0 */
/* The vector table of the nRF51 (reference manual 3.0, "Instantiation"), as far as it is used. */
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
                       fault_handler, fault_handler, fault_handler},
        },
    .external = {fault_handler, fault_handler, uart0_handler,  fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler, timer0_handler, fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler, fault_handler,  fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler, fault_handler,  fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler, fault_handler,  fault_handler, fault_handler, fault_handler,
                 fault_handler, fault_handler},
};
