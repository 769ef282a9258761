/* SPDX-License-Identifier: Apache-2.0 */
/* What a board brings. One core, one board, so there is no handle. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_keep.h"

/* Start the clock. Called once, first. */
void board_start(void);

/* Milliseconds since the start; wraps. */
uint32_t board_now_ms(void);

/* Seconds since 1970, which certificates are judged by. False: the board has no idea. */
bool board_unix_time(uint32_t *seconds);

/* Random bytes that nobody can guess. False: the board has none. */
bool board_random(uint8_t *out, uint32_t size);

/* Flash for the device's memory. */
const fm_storage_t *board_storage(void);

/* Sleep for `wait_ms`, or until a frame comes. */
void board_wait(uint32_t wait_ms);

/* One line to the debugger. */
void board_log(void *user, const char *line);

/* Do nothing more, for ever. */
void board_stop(void);

#endif
