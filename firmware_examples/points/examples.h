/* SPDX-License-Identifier: Apache-2.0 */
/* The local data. Put your own here: what the device measured, and what it turned out to be. */
#ifndef EXAMPLES_H
#define EXAMPLES_H

#include <stdint.h>

#define EXAMPLES 200u

/* Example `index`: two numbers in [0, 1), and whether their point lies inside a circle around the middle. */
void examples_read(void *user, uint32_t index, float *features, uint32_t *label);

#endif
