/* SPDX-License-Identifier: Apache-2.0 */
/* The mps2-an385: SysTick as clock, its LAN9220's interrupt, flash played by RAM; time and randomness are the
 * debugger's. */
#include "board.h"

#include "cortex_m.h"
#include "interrupts.h"
#include "lan9118.h"
#include "nor_ram.h"
#include "semihosting.h"

#define CLOCK_HZ 25000000u

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define SYSTICK_CTRL REGISTER(0xE000E010u)
#define SYSTICK_LOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define SYSTICK_RUN 0x7u /* on the core's clock, with interrupt */

#define NVIC_ENABLE REGISTER(0xE000E100u)
#define ETHERNET_IRQ (1u << 13)

extern uint8_t __storage_start[];
extern uint8_t __storage_end[];

static volatile uint32_t now_ms;
static volatile bool frame_came;
static fm_storage_t storage;

void systick_handler(void) { now_ms++; }

void ethernet_handler(void) {
  lan9118_quiet();
  frame_came = true;
}

void board_start(void) {
  nor_ram_init(&storage, __storage_start, (uint32_t)((uintptr_t)__storage_end - (uintptr_t)__storage_start));
  SYSTICK_LOAD = (CLOCK_HZ / 1000u) - 1u;
  SYSTICK_VALUE = 0u;
  SYSTICK_CTRL = SYSTICK_RUN;
  NVIC_ENABLE = ETHERNET_IRQ;
}

uint32_t board_now_ms(void) { return now_ms; }

bool board_unix_time(uint32_t *seconds) {
  *seconds = semihosting_time();
  return true;
}

bool board_random(uint8_t *out, uint32_t size) { return semihosting_read("/dev/urandom", out, size); }

const fm_storage_t *board_storage(void) { return &storage; }

void board_wait(uint32_t wait_ms) {
  const uint32_t from = now_ms;
  if (wait_ms > 0u) {
    lan9118_listen();
  }
  cortex_m_interrupts_off(); /* none may come between the check and the sleep; a pending one ends the sleep */
  while (!frame_came && ((now_ms - from) < wait_ms)) {
    cortex_m_sleep();
    cortex_m_interrupts_on();
    cortex_m_interrupts_off();
  }
  frame_came = false; /* interrupts are still off: a frame from here on ends the next wait */
  cortex_m_interrupts_on();
}

void board_log(void *user, const char *line) { cortex_m_log(user, line); }

void board_stop(void) { cortex_m_stop(); }
