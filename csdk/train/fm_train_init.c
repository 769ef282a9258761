/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's start: first weights, and whether the settings are right. */
#include <string.h>

#include "fedmote/fm_train.h"
#include "fm_train_internal.h"

#define MOST_EXAMPLES 0x40000000u /* most that permuted() can order */

static float square_root(float x) {
  float root = (x > 1.0f) ? x : 1.0f;
  for (uint32_t i = 0u; i < 40u; i++) { /* Newton; x is small and positive here */
    root = 0.5f * (root + (x / root));
  }
  return root;
}

void fm_train_randomize(const uint32_t *widths, uint32_t layers, uint32_t seed, float *parameters) {
  uint32_t at = 0u;
  for (uint32_t l = 0u; l < layers; l++) {
    const uint32_t kernel = widths[l] * widths[l + 1u];
    const uint32_t fans = widths[l] + widths[l + 1u];
    const float limit = square_root(6.0f / (float)fans);
    for (uint32_t i = 0u; i < (kernel + widths[l + 1u]); i++) {
      const float uniform = (float)(mix(seed ^ (at * 0x9E3779B9u)) >> 8) * (1.0f / 8388608.0f);
      parameters[at] = (i < kernel) ? (limit * (uniform - 1.0f)) : 0.0f;
      at++;
    }
  }
}

static bool tensors_fit(const fm_trainer_config_t *config) {
  bool fit = true;
  for (uint32_t t = 0u; fit && (t < (2u * config->layers)); t++) {
    const uint32_t l = t / 2u;
    const uint32_t in = ((t % 2u) == 0u) ? config->widths[l] : 1u;
    fit = (config->tensors[t].data != NULL) && (config->tensors[t].count == (in * config->widths[l + 1u]));
  }
  return fit;
}

static bool widths_valid(const fm_trainer_config_t *config) {
  bool valid = (config->widths != NULL) && (config->layers >= 1u) && (config->layers <= (uint32_t)FM_TRAIN_MAX_LAYERS);
  for (uint32_t l = 0u; valid && (l <= config->layers); l++) {
    valid = (config->widths[l] >= 1u) && (config->widths[l] <= 65535u);
  }
  return valid;
}

static bool data_valid(const fm_dataset_t *data) {
  return (data->count >= 1u) && (data->count <= MOST_EXAMPLES) && (data->read != NULL);
}

static bool sets_valid(const fm_trainer_config_t *config) {
  return data_valid(&config->data) && ((config->evaluation.count == 0u) || data_valid(&config->evaluation));
}

fm_status_t fm_trainer_init(fm_trainer_t *trainer, const fm_trainer_config_t *config) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((trainer != NULL) && (config != NULL) && widths_valid(config) && (config->tensors != NULL) &&
      (config->arena != NULL) && sets_valid(config) && tensors_fit(config)) {
    status = FM_ERR_BUFFER;
    if (config->arena_floats >= fm_train_arena_floats(config->widths, config->layers)) {
      (void)memset(trainer, 0, sizeof *trainer);
      trainer->config = config;
      status = FM_OK;
    }
  }
  return status;
}
