/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that a board must provide. There is one board, so there is no handle. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "fedmote/fm_keep.h"

/* Start the clock. Called once, first. */
void board_start(void);

/* Milliseconds since the start; wraps. */
uint32_t board_now_ms(void);

/* Write the seconds since 1970, for the dates of certificates. False: the board does not know them. */
bool board_unix_time(uint32_t *seconds);

/* Write random bytes that nobody can guess. False: the board has none. */
bool board_random(uint8_t *out, uint32_t size);

/* Return the flash in which the device keeps model, job and update. */
const fm_storage_t *board_storage(void);

/* Sleep for `wait_ms`, or until a frame arrives. */
void board_wait(uint32_t wait_ms);

/* Write one line to the debugger. */
void board_log(void *user, const char *line);

/* Sleep for ever. */
void board_stop(void);

#endif
