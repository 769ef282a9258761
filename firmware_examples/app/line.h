/* SPDX-License-Identifier: Apache-2.0 */
/* A line of text, put together without printf. What does not fit is left out. */
#ifndef LINE_H
#define LINE_H

#include <stdint.h>

#define LINE_SIZE 64u

typedef struct {
  uint32_t length;
  char text[LINE_SIZE]; /* ends with a zero */
} line_t;

void line_begin(line_t *line, const char *text);
void line_text(line_t *line, const char *text);
void line_number(line_t *line, uint32_t number); /* decimal */
void line_hex(line_t *line, uint32_t number);    /* eight digits */

#endif
