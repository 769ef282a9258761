/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fedmote/fm_train.h"

#define EXAMPLES_A_CALL 32u
#define LABEL UINT32_MAX /* in place of a feature's number */
#define NO_FIELD (UINT32_MAX - 1u)

void fm_histogram_add(fm_histogram_t *answer, const fm_plan_t *plan, float value) {
  const uint32_t bins = plan->query_bins;
  /* Dividing by a bin's width finds the right bin for every whole number up to 2^23 when low and width are whole. */
  const float width = (plan->query_high - plan->query_low) / (float)bins;
  float clipped = plan->query_low;
  uint32_t bin = 0u;
  if (value > plan->query_low) {
    clipped = (value < plan->query_high) ? value : plan->query_high;
  }
  const float place = (clipped - plan->query_low) / width;
  if (place >= (float)bins) {
    bin = bins - 1u;
  } else if (place > 0.0f) {
    bin = (uint32_t)place;
  } else {
    /* the first bin, also for a range of zero width */
  }
  answer->counts[bin]++;
  answer->sum += clipped;
  answer->count++;
}

/* Return the CRC-32 of a feature's field name: "feature" and its number in decimal. */
static uint32_t feature_field(uint32_t number) {
  uint8_t digits[10];
  uint32_t first = (uint32_t)sizeof digits;
  uint32_t rest = number;
  do {
    first--;
    digits[first] = (uint8_t)(0x30u + (rest % 10u)); /* ASCII, as on the server */
    rest /= 10u;
  } while (rest != 0u);
  return fm_crc32(fm_crc32(0u, "feature", 7u), &digits[first], ((uint32_t)sizeof digits) - first);
}

/* Return the number of the feature that `field` names, LABEL or NO_FIELD. */
static uint32_t find_field(const fm_trainer_config_t *config, uint32_t field) {
  uint32_t found = (field == fm_crc32(0u, "label", 5u)) ? LABEL : NO_FIELD;
  for (uint32_t i = 0u; (found == NO_FIELD) && (i < config->widths[0]); i++) {
    found = (field == feature_field(i)) ? i : NO_FIELD;
  }
  return found;
}

fm_status_t fm_trainer_query(void *trainer, const fm_plan_t *plan, fm_histogram_t *answer) {
  const fm_trainer_t *t = (const fm_trainer_t *)trainer;
  const fm_trainer_config_t *config = t->config;
  const uint32_t field = find_field(config, plan->query_field);
  const uint32_t left = config->data.count - answer->count;
  const uint32_t batch = (left < EXAMPLES_A_CALL) ? left : EXAMPLES_A_CALL;
  fm_status_t status = FM_ERR_UNSUPPORTED;
  if (field != NO_FIELD) {
    for (uint32_t i = 0u; i < batch; i++) {
      uint32_t label = 0u;
      config->data.read(config->data.user, answer->count, config->arena, &label);
      fm_histogram_add(answer, plan, (field == LABEL) ? (float)label : config->arena[field]);
    }
    status = (answer->count < config->data.count) ? FM_OK : FM_DONE;
  }
  return status;
}
