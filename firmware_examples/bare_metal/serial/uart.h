/* SPDX-License-Identifier: Apache-2.0 */
/* Between a UART's interrupt and the main loop: a ring each way, and the byte stream over them that a link wants.
 *
 * Each index has one writer, the interrupt or the main loop, and bytes are in place before the index moves: on one core
 * that is all it takes. The interrupt calls uart_received() and uart_next(), the main loop everything else. */
#ifndef UART_H
#define UART_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_serial.h"

/* What the server may send between two polls: its window of four frames. A power of two. */
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
  volatile uint32_t overruns; /* bytes that came and found no room; the link asks for them again */
  bool full;                  /* the last write was cut short */
  void (*start)(void);        /* there is something to send: make the interrupt call uart_next() */
  volatile uint8_t rx[UART_RX_SIZE];
  volatile uint8_t tx[UART_TX_SIZE];
} uart_t;

fm_stream_t uart_stream(uart_t *uart);

/* Is there anything that the main loop waits for: bytes, or room for those that did not fit? */
bool uart_wants(const uart_t *uart);

/* A byte came. */
void uart_received(uart_t *uart, uint8_t byte);

/* The byte to send next. False: none. */
bool uart_next(uart_t *uart, uint8_t *byte);

#endif
