/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that a board must provide: board/board.c of each firmware. There is one board, so there is no handle.
 */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#include "app.h"

/* Start clock, UART and storage, and fill in all of *platform but device id and examples. Called once, first. */
void board_start(app_platform_t *platform);

/* Milliseconds since the start; wraps. */
uint32_t board_now_ms(void);

/* Sleep for `wait_ms`, or until the UART has something for the main loop. */
void board_wait(uint32_t wait_ms);

/* Sleep for ever. */
void board_stop(void);

#endif
