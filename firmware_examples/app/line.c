/* SPDX-License-Identifier: Apache-2.0 */
#include "line.h"

#define MOST_DIGITS 10u /* of a uint32_t */

static void put(line_t *line, char c) {
  if (line->length < (LINE_SIZE - 1u)) {
    line->text[line->length] = c;
    line->length++;
    line->text[line->length] = '\0';
  }
}

void line_text(line_t *line, const char *text) {
  for (uint32_t i = 0u; text[i] != '\0'; i++) {
    put(line, text[i]);
  }
}

void line_begin(line_t *line, const char *text) {
  line->length = 0u;
  line->text[0] = '\0';
  line_text(line, text);
}

void line_number(line_t *line, uint32_t number) {
  char digits[MOST_DIGITS];
  uint32_t count = 0u;
  uint32_t rest = number;
  do {
    digits[count] = (char)('0' + (char)(rest % 10u));
    rest /= 10u;
    count++;
  } while (rest != 0u);
  while (count > 0u) {
    count--;
    put(line, digits[count]);
  }
}

void line_hex(line_t *line, uint32_t number) {
  static const char digits[] = "0123456789abcdef";
  for (uint32_t shift = 32u; shift > 0u; shift -= 4u) {
    put(line, digits[(number >> (shift - 4u)) & 0xFu]);
  }
}
