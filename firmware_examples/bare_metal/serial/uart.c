/* SPDX-License-Identifier: Apache-2.0 */
#include "uart.h"

/* ---- the interrupt's side ---- */

void uart_received(uart_t *uart, uint8_t byte) {
  const uint32_t in = uart->rx_in;
  if ((in - uart->rx_out) < UART_RX_SIZE) {
    uart->rx[in % UART_RX_SIZE] = byte;
    uart->rx_in = in + 1u;
  } else {
    uart->overruns++;
  }
}

bool uart_next(uart_t *uart, uint8_t *byte) {
  const uint32_t out = uart->tx_out;
  const bool there = out != uart->tx_in;
  if (there) {
    *byte = uart->tx[out % UART_TX_SIZE];
    uart->tx_out = out + 1u;
  }
  return there;
}

/* ---- the main loop's side ---- */

bool uart_wants(const uart_t *uart) {
  const bool room = (uart->tx_in - uart->tx_out) < UART_TX_SIZE;
  return (uart->rx_in != uart->rx_out) || (uart->full && room);
}

static fm_status_t uart_open(void *self) {
  (void)self;
  return FM_OK; /* the line is always there */
}

static int32_t uart_read(void *self, uint8_t *out, uint32_t size) {
  uart_t *uart = (uart_t *)self;
  uint32_t at = uart->rx_out;
  uint32_t count = 0u;
  while ((count < size) && (at != uart->rx_in)) {
    out[count] = uart->rx[at % UART_RX_SIZE];
    count++;
    at++;
  }
  uart->rx_out = at;
  return (int32_t)count;
}

static int32_t uart_write(void *self, const uint8_t *bytes, uint32_t size) {
  uart_t *uart = (uart_t *)self;
  uint32_t at = uart->tx_in;
  uint32_t count = 0u;
  while ((count < size) && ((at - uart->tx_out) < UART_TX_SIZE)) {
    uart->tx[at % UART_TX_SIZE] = bytes[count];
    count++;
    at++;
  }
  uart->tx_in = at;
  uart->full = count < size;
  if (count > 0u) {
    uart->start();
  }
  return (int32_t)count;
}

static void uart_close(void *self) { (void)self; }

fm_stream_t uart_stream(uart_t *uart) {
  static const fm_stream_api_t api = {uart_open, uart_read, uart_write, uart_close};
  const fm_stream_t stream = {&api, uart};
  return stream;
}
