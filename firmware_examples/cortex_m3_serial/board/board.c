/* SPDX-License-Identifier: Apache-2.0 */
/* The mps2-an385: SysTick as clock, the CMSDK APB UART 0 (Arm DDI 0479, chapter 4.3), flash played by RAM. */
#include "board.h"

#include "cortex_m.h"
#include "interrupts.h"
#include "nor_ram.h"
#include "uart.h"

#define CLOCK_HZ 25000000u
#define BAUD 115200u

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u)
#define UART_CTRL REGISTER(0x40004008u)
#define UART_INT_CLEAR REGISTER(0x4000400Cu)
#define UART_BAUD_DIV REGISTER(0x40004010u)
#define UART_TX_FULL 0x1u /* of the state */
#define UART_RX_FULL 0x2u
#define UART_ENABLE 0xFu /* transmitter, receiver, and the interrupt of each */
#define UART_TX_INT 0x1u /* to clear */
#define UART_RX_INT 0x2u

#define SYSTICK_CTRL REGISTER(0xE000E010u)
#define SYSTICK_LOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define SYSTICK_RUN 0x7u /* on the core's clock, with interrupt */

#define NVIC_ENABLE REGISTER(0xE000E100u)
#define UART0_IRQS 0x3u

extern uint8_t __storage_start[];
extern uint8_t __storage_end[];

static volatile uint32_t now_ms;
static uart_t uart0;
static fm_storage_t storage;

/* ---- interrupts ---- */

void systick_handler(void) { now_ms++; }

void uart0_rx_handler(void) {
  UART_INT_CLEAR = UART_RX_INT;
  while ((UART_STATE & UART_RX_FULL) != 0u) {
    uart_received(&uart0, (uint8_t)UART_DATA);
  }
}

/* Fill the transmitter, whose interrupt comes when it has room again. */
static void uart0_send(void) {
  uint8_t byte;
  while (((UART_STATE & UART_TX_FULL) == 0u) && uart_next(&uart0, &byte)) {
    UART_DATA = byte;
  }
}

void uart0_tx_handler(void) {
  UART_INT_CLEAR = UART_TX_INT;
  uart0_send();
}

static void uart0_start(void) {
  cortex_m_interrupts_off();
  uart0_send();
  cortex_m_interrupts_on();
}

/* ---- a number that is new at each start ---- */

static uint32_t seed_word(uint32_t offset) {
  uint32_t word = 0u;
  (void)storage.read(storage.user, offset, (uint8_t *)&word, 4u);
  return word;
}

/* The board has no source of randomness, so its starts are counted in a block of flash: each clears a word. */
static uint32_t count_start(uint32_t block) {
  static const uint8_t cleared[4] = {0u, 0u, 0u, 0u};
  uint32_t count = 0u;
  while ((count < (NOR_BLOCK / 4u)) && (seed_word(block + (4u * count)) == 0u)) {
    count++;
  }
  if (count == (NOR_BLOCK / 4u)) {
    (void)storage.erase(storage.user, block);
    count = 0u;
  }
  (void)storage.program(storage.user, block + (4u * count), cleared, 4u);
  return count;
}

/* ---- the board ---- */

void board_start(app_platform_t *platform) {
  const uint32_t keep_size = (uint32_t)((uintptr_t)__storage_end - (uintptr_t)__storage_start) - NOR_BLOCK;
  nor_ram_init(&storage, __storage_start, keep_size);
  platform->seed = (count_start(keep_size) + 1u) * 0x9E3779B9u;
  platform->storage = &storage;
  uart0.start = uart0_start;
  platform->stream = uart_stream(&uart0);
  platform->link.baud = BAUD;
  platform->log = cortex_m_log;
  SYSTICK_LOAD = (CLOCK_HZ / 1000u) - 1u;
  SYSTICK_VALUE = 0u;
  SYSTICK_CTRL = SYSTICK_RUN;
  UART_BAUD_DIV = CLOCK_HZ / BAUD;
  UART_CTRL = UART_ENABLE;
  NVIC_ENABLE = UART0_IRQS;
}

uint32_t board_now_ms(void) { return now_ms; }

void board_wait(uint32_t wait_ms) {
  const uint32_t from = now_ms;
  cortex_m_interrupts_off(); /* none may come between the check and the sleep; a pending one ends the sleep */
  while (!uart_wants(&uart0) && ((now_ms - from) < wait_ms)) {
    cortex_m_sleep();
    cortex_m_interrupts_on();
    cortex_m_interrupts_off();
  }
  cortex_m_interrupts_on();
}

void board_stop(void) { cortex_m_stop(); }
