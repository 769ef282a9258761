/* SPDX-License-Identifier: Apache-2.0 */
/* A board for firmware_examples/app as a struct on the host. The caller plays its UART's interrupts, clock and power.
 */
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "digits.h"
#include "flash.h"
#include "uart.h"

#define FLASH_SIZE 32768u
#define BLOCK 4096u
#define WORD 8u
#define BAUD 115200u

typedef struct {
  app_t app;
  app_platform_t platform;
  digits_t digits;
  fm_dataset_t examples;
  uart_t uart;
  fmb_flash_t flash;
  fm_storage_t storage;
  uint8_t image[FLASH_SIZE];
  char id[64];
} board_t;

static void uart_started(void) {} /* the caller asks for bytes when the line takes them */

board_t *board_new(const char *id, const uint8_t *features, const uint8_t *labels, uint32_t count);
void board_power_on(board_t *board, uint32_t seed, void (*log)(void *user, const char *line));
uint32_t board_poll(board_t *board, uint32_t now_ms);
void board_receive(board_t *board, const uint8_t *bytes, uint32_t size);
uint32_t board_transmit(board_t *board, uint8_t *bytes, uint32_t most);
uint32_t board_counter(const board_t *board, uint32_t which);

board_t *board_new(const char *id, const uint8_t *features, const uint8_t *labels, uint32_t count) {
  board_t *board = calloc(1u, sizeof *board);
  (void)strncpy(board->id, id, sizeof board->id - 1u);
  board->digits = (digits_t){features, labels, 1.0f / 16.0f};
  board->examples = (fm_dataset_t){count, digits_read, &board->digits};
  board->flash.bytes = board->image;
  board->flash.size = FLASH_SIZE;
  board->flash.erase_size = BLOCK;
  board->flash.program_size = WORD;
  fmb_flash_storage(&board->flash, &board->storage);
  return board;
}

/* After a power cut RAM holds garbage. */
void board_power_on(board_t *board, uint32_t seed, void (*log)(void *user, const char *line)) {
  (void)memset(&board->app, 0xA5, sizeof board->app);
  (void)memset(&board->uart, 0, sizeof board->uart);
  board->uart.start = uart_started;
  board->platform = (app_platform_t){.device_id = board->id,
                                     .examples = &board->examples,
                                     .stream = uart_stream(&board->uart),
                                     .link = {BAUD},
                                     .seed = seed,
                                     .storage = &board->storage,
                                     .log = log};
  (void)app_init(&board->app, &board->platform);
}

uint32_t board_poll(board_t *board, uint32_t now_ms) {
  const uint32_t wait_ms = app_poll(&board->app, now_ms);
  return uart_wants(&board->uart) ? 0u : wait_ms;
}

void board_receive(board_t *board, const uint8_t *bytes, uint32_t size) {
  for (uint32_t i = 0u; i < size; i++) {
    uart_received(&board->uart, bytes[i]);
  }
}

uint32_t board_transmit(board_t *board, uint8_t *bytes, uint32_t most) {
  uint32_t size = 0u;
  while ((size < most) && uart_next(&board->uart, &bytes[size])) {
    size++;
  }
  return size;
}

uint32_t board_counter(const board_t *board, uint32_t which) {
  const uint32_t values[] = {board->app.client.counters.updates,
                             board->app.client.counters.partial_updates,
                             board->app.link.serial.counters.connections,
                             board->uart.overruns,
                             board->app.keep.errors,
                             board->flash.misused,
                             (uint32_t)fm_client_state(&board->app.client),
                             board->app.client.counters.chunks_resumed_in,
                             board->app.client.counters.chunks_resumed_out};
  return values[which];
}
