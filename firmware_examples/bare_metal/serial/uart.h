/* SPDX-License-Identifier: Apache-2.0 */
/* Two rings between a UART's interrupt and the main loop, one each way, and the byte stream over them for a link.
 *
 * Each index has one writer, the interrupt or the main loop, and bytes are in place before the index moves. On one core
 * no lock is needed. The interrupt calls uart_received() and uart_next(), the main loop everything else. */
#ifndef UART_H
#define UART_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_serial.h"

/* At least what the server may send between two polls, its window of four frames. A power of two. */
#define UART_RX_SIZE 1024u
#if UART_RX_SIZE < (4u * (FM_SERIAL_PAYLOAD + 14u))
#error "UART_RX_SIZE must be 4 x (FM_SERIAL_PAYLOAD + 14) at least"
#endif
#define UART_TX_SIZE 256u

typedef struct {
  volatile uint32_t rx_in; /* indices count on and are taken modulo the size */
  volatile uint32_t rx_out;
  volatile uint32_t tx_in;
  volatile uint32_t tx_out;
  volatile uint32_t overruns; /* received bytes for which there was no room; the link asks for them again */
  bool full;                  /* the last write was cut short */
  void (*start)(void);        /* there is something to send: make the interrupt call uart_next() */
  volatile uint8_t rx[UART_RX_SIZE];
  volatile uint8_t tx[UART_TX_SIZE];
} uart_t;

fm_stream_t uart_stream(uart_t *uart);

/* Return whether the main loop has work: received bytes, or room for bytes that did not fit. */
bool uart_wants(const uart_t *uart);

/* Store a received byte. */
void uart_received(uart_t *uart, uint8_t byte);

/* Write the next byte to send to *byte. False: there is none. */
bool uart_next(uart_t *uart, uint8_t *byte);

#endif
