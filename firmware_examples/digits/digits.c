/* SPDX-License-Identifier: Apache-2.0 */
#include "digits.h"

#include "model.h"

void digits_read(void *user, uint32_t index, float *features, uint32_t *label) {
  const digits_t *digits = (const digits_t *)user;
  const uint8_t *row = &digits->features[index * MODEL_INPUTS];
  for (uint32_t i = 0u; i < MODEL_INPUTS; i++) {
    features[i] = (float)row[i] * digits->scale;
  }
  *label = digits->labels[index];
}
