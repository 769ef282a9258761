/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's virt: a 16550 behind a PLIC, the CLINT's timer as clock and alarm, flash played by RAM. There is no tick: the
 * timer's interrupt comes when a sleep is over. */
#include "board.h"

#include "interrupts.h"
#include "nor_ram.h"
#include "riscv32.h"
#include "uart.h"

#define BAUD 115200u
#define UART_CLOCK_HZ 3686400u
#define TIMER_A_MS 10000u
#define NEVER 0xFFFFFFFFu

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define REGISTER8(address) (*(volatile uint8_t *)(address))

#define UART_DATA REGISTER8(0x10000000u)
#define UART_DIVISOR_LOW REGISTER8(0x10000000u) /* these two while UART_LINE says so */
#define UART_DIVISOR_HIGH REGISTER8(0x10000001u)
#define UART_INTERRUPTS REGISTER8(0x10000001u)
#define UART_FIFO REGISTER8(0x10000002u)
#define UART_LINE REGISTER8(0x10000003u)
#define UART_STATUS REGISTER8(0x10000005u)
#define UART_RX_INT 0x01u
#define UART_TX_INT 0x02u
#define UART_FIFO_ON 0x07u /* and emptied; an interrupt for each byte */
#define UART_8N1 0x03u
#define UART_DIVISOR 0x80u
#define UART_HAS_BYTE 0x01u /* of the status */
#define UART_TX_EMPTY 0x20u

#define UART_IRQ 10u
#define PLIC_PRIORITY REGISTER(0x0C000000u + (4u * UART_IRQ))
#define PLIC_ENABLE REGISTER(0x0C002000u)
#define PLIC_THRESHOLD REGISTER(0x0C200000u)
#define PLIC_CLAIM REGISTER(0x0C200004u)

#define ALARM_LOW REGISTER(0x02004000u)
#define ALARM_HIGH REGISTER(0x02004004u)
#define TIME_LOW REGISTER(0x0200BFF8u)
#define TIME_HIGH REGISTER(0x0200BFFCu)

#define CALENDAR_LOW REGISTER(0x00101000u) /* nanoseconds; reading this holds the other */
#define CALENDAR_HIGH REGISTER(0x00101004u)

extern uint8_t __storage_start[];
extern uint8_t __storage_end[];

static uart_t uart0;
static fm_storage_t storage;

/* ---- the clock ---- */

static uint64_t timer(void) {
  uint32_t high;
  uint32_t low;
  do {
    high = TIME_HIGH;
    low = TIME_LOW;
  } while (high != TIME_HIGH);
  return ((uint64_t)high << 32) | low;
}

static void alarm_at(uint64_t time) {
  ALARM_HIGH = NEVER; /* so that no half of it rings */
  ALARM_LOW = (uint32_t)time;
  ALARM_HIGH = (uint32_t)(time >> 32);
}

uint32_t board_now_ms(void) { return (uint32_t)(timer() / TIMER_A_MS); }

/* ---- the UART ---- */

/* Fill the transmitter; its interrupt stays on for as long as there is more. */
static void uart0_send(void) {
  uint8_t byte;
  bool more = true;
  while (more && ((UART_STATUS & UART_TX_EMPTY) != 0u)) {
    more = uart_next(&uart0, &byte);
    if (more) {
      UART_DATA = byte;
    }
  }
  UART_INTERRUPTS = more ? (UART_RX_INT | UART_TX_INT) : UART_RX_INT;
}

static void uart0_start(void) {
  riscv32_interrupts_off();
  uart0_send();
  riscv32_interrupts_on();
}

static void uart0_handler(void) {
  while ((UART_STATUS & UART_HAS_BYTE) != 0u) {
    uart_received(&uart0, UART_DATA);
  }
  uart0_send();
}

void interrupt_handler(uint32_t cause) {
  if (cause == RISCV32_EXTERNAL) {
    const uint32_t irq = PLIC_CLAIM;
    if (irq == UART_IRQ) {
      uart0_handler();
    }
    PLIC_CLAIM = irq;
  } else {
    ALARM_HIGH = NEVER; /* it rang */
  }
}

/* ---- the board ---- */

void board_start(app_platform_t *platform) {
  nor_ram_init(&storage, __storage_start, (uint32_t)((uintptr_t)__storage_end - (uintptr_t)__storage_start));
  platform->seed = CALENDAR_LOW;
  platform->seed ^= CALENDAR_HIGH;
  platform->storage = &storage;
  uart0.start = uart0_start;
  platform->stream = uart_stream(&uart0);
  platform->link.baud = BAUD;
  platform->log = riscv32_log;
  UART_LINE = UART_DIVISOR | UART_8N1;
  UART_DIVISOR_LOW = (uint8_t)(UART_CLOCK_HZ / (16u * BAUD));
  UART_DIVISOR_HIGH = 0u;
  UART_LINE = UART_8N1;
  UART_FIFO = UART_FIFO_ON;
  UART_INTERRUPTS = UART_RX_INT;
  PLIC_PRIORITY = 1u;
  PLIC_ENABLE = 1u << UART_IRQ;
  PLIC_THRESHOLD = 0u;
  ALARM_HIGH = NEVER;
  riscv32_enable(RISCV32_TIMER);
  riscv32_enable(RISCV32_EXTERNAL);
  riscv32_interrupts_on();
}

void board_wait(uint32_t wait_ms) {
  const uint64_t until = timer() + ((uint64_t)wait_ms * TIMER_A_MS);
  riscv32_interrupts_off(); /* none may come between the check and the sleep; a pending one ends the sleep */
  while (!uart_wants(&uart0) && (timer() < until)) {
    alarm_at(until);
    riscv32_sleep();
    riscv32_interrupts_on();
    riscv32_interrupts_off();
  }
  riscv32_interrupts_on();
}

void board_stop(void) { riscv32_stop(); }
