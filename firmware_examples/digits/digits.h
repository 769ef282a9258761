/* SPDX-License-Identifier: Apache-2.0 */
/* The local examples: a share of the digits, in flash. make_partition.py writes one. */
#ifndef DIGITS_H
#define DIGITS_H

#include <stdint.h>

#include "fedmote/fm_train.h"

typedef struct {
  const uint8_t *features; /* a row of MODEL_INPUTS for each example */
  const uint8_t *labels;
  float scale; /* a feature is its byte times this */
} digits_t;

/* For fm_dataset_t: read example `index` of a digits_t, `user`. */
void digits_read(void *user, uint32_t index, float *features, uint32_t *label);

#endif
