/* SPDX-License-Identifier: Apache-2.0 */
/* The micro:bit's nRF51822 (reference manual 3.0): TIMER0 as clock, since there is no SysTick, the UART without DMA,
 * the random number generator. */
#include "board.h"

#include "cortex_m.h"
#include "flash.h"
#include "interrupts.h"
#include "uart.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define CLOCK_START REGISTER(0x40000000u) /* the crystal: a UART wants it */
#define CLOCK_STARTED REGISTER(0x40000100u)

#define UART_START_RX REGISTER(0x40002000u)
#define UART_START_TX REGISTER(0x40002008u)
#define UART_RX_READY REGISTER(0x40002108u)
#define UART_TX_READY REGISTER(0x4000211Cu)
#define UART_INT_SET REGISTER(0x40002304u)
#define UART_ENABLE REGISTER(0x40002500u)
#define UART_TX_PIN REGISTER(0x4000250Cu)
#define UART_RX_PIN REGISTER(0x40002514u)
#define UART_RX_DATA REGISTER(0x40002518u)
#define UART_TX_DATA REGISTER(0x4000251Cu)
#define UART_BAUD_RATE REGISTER(0x40002524u)
#define UART_INTS ((1u << 2) | (1u << 7)) /* RX_READY and TX_READY */
#define UART_ON 4u
#define UART_115200 0x01D7E000u
#define BAUD 115200u
#define TX_PIN 24u
#define RX_PIN 25u

#define TIMER_START REGISTER(0x40008000u)
#define TIMER_REACHED REGISTER(0x40008140u)
#define TIMER_SHORTS REGISTER(0x40008200u)
#define TIMER_INT_SET REGISTER(0x40008304u)
#define TIMER_BITS REGISTER(0x40008508u)
#define TIMER_PRESCALER REGISTER(0x40008510u)
#define TIMER_COMPARE REGISTER(0x40008540u)
#define TIMER_REACHED_INT (1u << 16)
#define TIMER_32_BITS 3u
#define TIMER_1_MHZ 4u /* 16 MHz by 2^4 */

#define RANDOM_START REGISTER(0x4000D000u)
#define RANDOM_READY REGISTER(0x4000D100u)
#define RANDOM_VALUE REGISTER(0x4000D508u)

#define NVIC_ENABLE REGISTER(0xE000E100u)
#define UART0_IRQ 2u
#define TIMER0_IRQ 8u

static volatile uint32_t now_ms;
static volatile bool sending; /* TX_READY is to come */
static uart_t uart0;
static fm_storage_t storage;

/* ---- interrupts ---- */

void timer0_handler(void) {
  TIMER_REACHED = 0u;
  now_ms++;
}

static void uart0_send(void) {
  uint8_t byte;
  sending = uart_next(&uart0, &byte);
  if (sending) {
    UART_TX_DATA = byte;
  }
}

void uart0_handler(void) {
  while (UART_RX_READY != 0u) {
    UART_RX_READY = 0u;
    uart_received(&uart0, (uint8_t)UART_RX_DATA);
  }
  if (UART_TX_READY != 0u) {
    UART_TX_READY = 0u;
    uart0_send();
  }
}

static void uart0_start(void) {
  cortex_m_interrupts_off();
  if (!sending) {
    uart0_send();
  }
  cortex_m_interrupts_on();
}

/* ---- the board ---- */

static void start_clock(void) {
  CLOCK_STARTED = 0u;
  CLOCK_START = 1u;
  while (CLOCK_STARTED == 0u) {
  }
  TIMER_BITS = TIMER_32_BITS;
  TIMER_PRESCALER = TIMER_1_MHZ;
  TIMER_COMPARE = 1000u;
  TIMER_SHORTS = 1u; /* begins anew when it is reached */
  TIMER_INT_SET = TIMER_REACHED_INT;
  TIMER_START = 1u;
}

static void start_uart(void) {
  UART_TX_PIN = TX_PIN;
  UART_RX_PIN = RX_PIN;
  UART_BAUD_RATE = UART_115200;
  UART_ENABLE = UART_ON;
  UART_INT_SET = UART_INTS;
  UART_START_RX = 1u;
  UART_START_TX = 1u;
}

static uint32_t random_number(void) {
  uint32_t number = 0u;
  RANDOM_START = 1u;
  for (uint32_t i = 0u; i < 4u; i++) {
    while (RANDOM_READY == 0u) {
    }
    RANDOM_READY = 0u;
    number = (number << 8) | (RANDOM_VALUE & 0xFFu);
  }
  return number;
}

void board_start(app_platform_t *platform) {
  flash_init(&storage);
  start_clock();
  platform->seed = random_number();
  platform->storage = &storage;
  uart0.start = uart0_start;
  platform->stream = uart_stream(&uart0);
  platform->link.baud = BAUD;
  platform->log = cortex_m_log;
  start_uart();
  NVIC_ENABLE = (1u << UART0_IRQ) | (1u << TIMER0_IRQ);
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
