/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan may ask of this device, how its update is encoded, and how many chunks there are. Calls no
 * other file of the client. */
#include "fm_client_internal.h"

#define MOST_CHUNK_ELEMENTS 16384u

uint32_t fm_chunk_count(uint32_t elements, uint32_t chunk_elements) {
  return (elements + chunk_elements - 1u) / chunk_elements;
}

uint32_t fm_chunk_size(uint32_t elements, uint32_t chunk_elements, uint32_t index) {
  uint32_t size = 0u;
  if (index < fm_chunk_count(elements, chunk_elements)) {
    size = fm_smaller(chunk_elements, elements - (index * chunk_elements));
  }
  return size;
}

bool fm_plan_has_base(const fm_client_t *client) {
  bool every = true;
  for (uint32_t t = 0u; t < client->config->tensor_count; t++) {
    const fm_tensor_t *tensor = &client->config->tensors[t];
    every = every && (tensor->local || (tensor->base != NULL));
  }
  return every;
}

uint8_t fm_plan_kinds(const fm_client_t *client) {
  const uint32_t delta = fm_plan_has_base(client) ? FM_BIT(FM_UPDATE_KIND_DELTA) : 0u;
  return (uint8_t)(FM_BIT(FM_UPDATE_KIND_WEIGHTS) | delta);
}

static bool task_valid(const fm_plan_t *plan) {
  const bool bins = (plan->query_bins >= 1u) && (plan->query_bins <= FM_MAX_BINS);
  return (plan->task != FM_TASK_QUERY) || ((FM_WITH_QUERY != 0) && bins);
}

bool fm_plan_valid(const fm_client_t *client, const fm_plan_t *plan) {
  return (plan->round != 0u) && (plan->model_version != 0u) && (plan->model_elements == client->shared) &&
         (plan->model_chunk_elements >= 1u) && (plan->model_chunk_elements <= MOST_CHUNK_ELEMENTS) &&
         (plan->update_chunk_elements >= 1u) && (plan->update_chunk_elements <= MOST_CHUNK_ELEMENTS) &&
         task_valid(plan);
}

bool fm_plan_choose_encoding(fm_client_t *client, const fm_plan_t *plan) {
  const uint32_t encodings = plan->encodings & (client->config->encodings | FM_BIT(FM_ENCODING_FLOAT32));
  const uint32_t kinds = plan->kinds & (uint32_t)fm_plan_kinds(client);
  const bool int8 = (FM_WITH_INT8 != 0) && ((encodings & FM_BIT(FM_ENCODING_INT8)) != 0u);
  const bool delta = ((kinds & FM_BIT(FM_UPDATE_KIND_DELTA)) != 0u) &&
                     (client->config->prefer_delta || ((kinds & FM_BIT(FM_UPDATE_KIND_WEIGHTS)) == 0u));
  client->encoding = int8 ? (uint8_t)FM_ENCODING_INT8 : (uint8_t)FM_ENCODING_FLOAT32;
  client->kind = delta ? (uint8_t)FM_UPDATE_KIND_DELTA : (uint8_t)FM_UPDATE_KIND_WEIGHTS;
  return (int8 || ((encodings & FM_BIT(FM_ENCODING_FLOAT32)) != 0u)) && (kinds != 0u);
}
