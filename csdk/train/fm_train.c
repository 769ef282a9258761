/* SPDX-License-Identifier: Apache-2.0 */
#include "fedmote/fm_train.h"

#include <string.h>

#include "fm_train_internal.h"

#define SMALLEST_PROBABILITY 1e-30f
#define LARGEST_SETTING 1e6f  /* learning rate, prox_mu */
#define LARGEST_FLOAT 3.4e38f /* less than infinity */

/* ---- sizes and tables ---- */

uint32_t fm_train_parameters(const uint32_t *widths, uint32_t layers) {
  uint32_t count = 0u;
  for (uint32_t l = 0u; l < layers; l++) {
    count += (widths[l] * widths[l + 1u]) + widths[l + 1u];
  }
  return count;
}

/* Return the number of activations of all layers, the features included. */
static uint32_t units(const uint32_t *widths, uint32_t layers) {
  uint32_t count = 0u;
  for (uint32_t l = 0u; l <= layers; l++) {
    count += widths[l];
  }
  return count;
}

uint32_t fm_train_arena_floats(const uint32_t *widths, uint32_t layers) {
  return fm_train_parameters(widths, layers) + (2u * units(widths, layers));
}

/* ---- one example forwards and backwards ---- */

/* out[j] = bias[j] + sum over i of in[i] * kernel[i][j]; the inner loop runs over neighbours in memory. */
static void dense_forward(const float *kernel, const float *bias, const float *in, uint32_t in_width, float *out,
                          uint32_t out_width) {
  (void)memcpy(out, bias, (size_t)out_width * sizeof *out);
  for (uint32_t i = 0u; i < in_width; i++) {
    const float x = in[i];
    const float *row = &kernel[i * out_width];
    if (x != 0.0f) { /* pixels and ReLU leave many zeros */
      for (uint32_t j = 0u; j < out_width; j++) {
        out[j] += x * row[j];
      }
    }
  }
}

/* Add the gradients of kernel and bias, computed from the error at the output. With `back`, also write the error at the
 * input. */
static void dense_backward(const float *kernel, const float *in, uint32_t in_width, const float *error,
                           uint32_t out_width, float *gradient, float *back) {
  float *bias_gradient = &gradient[in_width * out_width];
  for (uint32_t i = 0u; i < in_width; i++) {
    const float x = in[i];
    float *row = &gradient[i * out_width];
    if (x != 0.0f) {
      for (uint32_t j = 0u; j < out_width; j++) {
        row[j] += x * error[j];
      }
    }
    if (back != NULL) {
      float sum = 0.0f;
      const uint32_t reached = (x > 0.0f) ? out_width : 0u; /* ReLU passes no error where it was off */
      for (uint32_t j = 0u; j < reached; j++) {
        sum += kernel[(i * out_width) + j] * error[j];
      }
      back[i] = sum;
    }
  }
  for (uint32_t j = 0u; j < out_width; j++) {
    bias_gradient[j] += error[j];
  }
}

/* Compute the activations of all layers, one after the other, behind the features. Return the offset of the last
 * layer's, the logits. */
static uint32_t forward(const fm_trainer_t *trainer, float *activations) {
  const fm_trainer_config_t *config = trainer->config;
  uint32_t at = 0u;
  for (uint32_t l = 0u; l < config->layers; l++) {
    float *in = &activations[at];
    float *out = &activations[at + config->widths[l]];
    dense_forward(config->tensors[2u * l].data, config->tensors[(2u * l) + 1u].data, in, config->widths[l], out,
                  config->widths[l + 1u]);
    for (uint32_t j = 0u; ((l + 1u) < config->layers) && (j < config->widths[l + 1u]); j++) {
      out[j] = (out[j] < 0.0f) ? 0.0f : out[j]; /* NaN stays, so that the loss shows it */
    }
    at += config->widths[l];
  }
  return at;
}

/* Turn logits into probabilities, shifted by the largest so that nothing overflows. Return the cross-entropy with
 * `label`. */
static float softmax(float *logits, uint32_t classes, uint32_t label) {
  float largest = logits[0];
  float sum = 0.0f;
  for (uint32_t j = 1u; j < classes; j++) {
    largest = (logits[j] > largest) ? logits[j] : largest;
  }
  const float target = logits[label] - largest;
  for (uint32_t j = 0u; j < classes; j++) {
    logits[j] = fm_train_exp(logits[j] - largest);
    sum += logits[j];
  }
  for (uint32_t j = 0u; j < classes; j++) {
    logits[j] /= sum;
  }
  sum = (sum > SMALLEST_PROBABILITY) ? sum : SMALLEST_PROBABILITY;
  return (sum <= LARGEST_FLOAT) ? (fm_train_log(sum) - target) : sum; /* infinite if a logit is NaN */
}

static float *activations_of(const fm_trainer_t *trainer) {
  return &trainer->config->arena[fm_train_parameters(trainer->config->widths, trainer->config->layers)];
}

float fm_train_gradient(const fm_trainer_t *trainer, const float *features, uint32_t label, float *gradient) {
  const fm_trainer_config_t *config = trainer->config;
  float *activations = activations_of(trainer);
  float *errors = &activations[units(config->widths, config->layers)];
  float loss;
  uint32_t gradient_at = fm_train_parameters(config->widths, config->layers);
  if (features != activations) {
    (void)memcpy(activations, features, (size_t)config->widths[0] * sizeof *features);
  }
  uint32_t at = forward(trainer, activations);
  const uint32_t classes = config->widths[config->layers];
  loss = softmax(&activations[at], classes, label);
  (void)memcpy(&errors[at], &activations[at], (size_t)classes * sizeof *errors);
  errors[at + label] -= 1.0f;
  for (uint32_t above = config->layers; above != 0u; above--) {
    const uint32_t l = above - 1u;
    const uint32_t in = config->widths[l];
    const uint32_t out = config->widths[l + 1u];
    gradient_at -= (in + 1u) * out;
    dense_backward(config->tensors[2u * l].data, &activations[at - in], in, &errors[at], out, &gradient[gradient_at],
                   (l != 0u) ? &errors[at - in] : NULL);
    at -= in;
  }
  return loss;
}

/* ---- the work of a plan ---- */

/* Return position `i` of the epoch's order: a permutation of [0, count) that needs no memory. A four-round Feistel
 * network permutes the next even number of bits. It is applied until the result is below count (Black and Rogaway 2002,
 * "Ciphers with Arbitrary Finite Domains"). */
static uint32_t permuted(uint32_t i, uint32_t count, uint32_t key) {
  uint32_t bits = 1u;
  uint32_t x = i;
  while (((uint32_t)1u << (2u * bits)) < count) {
    bits++;
  }
  const uint32_t mask = (uint32_t)(1uL << bits) - 1u;
  do {
    uint32_t left = x >> bits;
    uint32_t right = x & mask;
    for (uint32_t round = 0u; round < 4u; round++) {
      const uint32_t next = left ^ (mix(right ^ key ^ (round * 0x9E3779B9u)) & mask);
      left = right;
      right = next;
    }
    x = (left << bits) | right;
  } while (x >= count);
  return x;
}

/* Tell whether a plan's numbers are such that one can train with them; NaN is not. */
static bool plan_usable(const fm_plan_t *plan) {
  return (plan->learning_rate >= 0.0f) && (plan->learning_rate <= LARGEST_SETTING) && (plan->prox_mu >= 0.0f) &&
         (plan->prox_mu <= LARGEST_SETTING);
}

/* Read an example. Return whether its features are finite and its label is one of the classes. */
static bool read_example(const fm_trainer_t *t, const fm_dataset_t *data, uint32_t index, float *features,
                         uint32_t *label) {
  bool sound;
  data->read(data->user, index, features, label);
  sound = (*label < t->config->widths[t->config->layers]);
  for (uint32_t j = 0u; j < t->config->widths[0]; j++) {
    sound = sound && (features[j] >= -LARGEST_FLOAT) && (features[j] <= LARGEST_FLOAT); /* NaN is neither */
  }
  return sound;
}

/* Add to the loss with the rounding error of the sums before (Kahan 1965), so that millions of examples count alike. */
static void add_loss(fm_trainer_t *t, float loss) {
  const float corrected = loss - t->loss_error;
  const float sum = t->loss_sum + corrected;
  t->loss_error = (sum - t->loss_sum) - corrected;
  t->loss_sum = sum;
}

fm_status_t fm_trainer_begin(void *trainer, const fm_plan_t *plan, fm_work_t *work) {
  fm_trainer_t *t = (fm_trainer_t *)trainer;
  const uint32_t count = t->config->data.count;
  fm_status_t status = plan_usable(plan) ? FM_OK : FM_ERR_TRAINING;
  t->learning_rate = plan->learning_rate;
  t->prox_mu = plan->prox_mu;
  t->batch_size = (plan->batch_size != 0u) ? plan->batch_size : 1u;
  t->steps_an_epoch = (count + t->batch_size - 1u) / t->batch_size;
  t->planned_steps = UINT32_MAX;
  if (plan->epochs <= (UINT32_MAX / t->steps_an_epoch)) {
    t->planned_steps = t->steps_an_epoch * plan->epochs;
  }
  if ((plan->max_steps != 0u) && (plan->max_steps < t->planned_steps)) {
    t->planned_steps = plan->max_steps;
  }
  t->seed = mix(plan->seed ^ mix(t->config->seed ^ plan->round));
  t->next = 0u;
  t->epoch = 0u;
  t->loss_sum = 0.0f;
  t->loss_error = 0.0f;
  work->planned_steps = t->planned_steps;
  if (plan->prox_mu != 0.0f) {
    for (uint32_t i = 0u; i < (2u * t->config->layers); i++) {
      const fm_tensor_t *tensor = &t->config->tensors[i];
      status = (tensor->local || (tensor->base != NULL)) ? status : FM_ERR_TRAINING;
    }
  }
  return status;
}

/* w -= rate * (gradient / batch + mu * (w - base)): SGD with the proximal term of FedProx (Li et al. 2020, eq. 2). */
static void descend(const fm_trainer_t *t, const float *gradient, uint32_t batch) {
  const float rate = t->learning_rate / (float)batch;
  const float strength = t->learning_rate * t->prox_mu;
  uint32_t at = 0u;
  for (uint32_t i = 0u; i < (2u * t->config->layers); i++) {
    const fm_tensor_t *tensor = &t->config->tensors[i];
    for (uint32_t j = 0u; j < tensor->count; j++) {
      float change = rate * gradient[at + j];
      if ((strength != 0.0f) && !tensor->local) { /* a local tensor has no shared model to stay close to */
        change += strength * (tensor->data[j] - tensor->base[j]);
      }
      tensor->data[j] -= change;
    }
    at += tensor->count;
  }
}

/* Change the model by a batch's gradient, and count the step. */
static fm_status_t step_end(fm_trainer_t *t, fm_work_t *work, const float *gradient, uint32_t batch) {
  const uint32_t count = t->config->data.count;
  descend(t, gradient, batch);
  t->next += batch;
  work->steps++;
  work->loss = t->loss_sum / (float)t->next;
  work->examples = (t->epoch == 0u) ? t->next : count;
  if (t->next == count) {
    t->next = 0u;
    t->epoch++;
    t->loss_sum = 0.0f;
    t->loss_error = 0.0f;
  }
  return (work->steps < t->planned_steps) ? FM_OK : FM_DONE;
}

fm_status_t fm_trainer_step(void *trainer, fm_work_t *work) {
  fm_trainer_t *t = (fm_trainer_t *)trainer;
  const fm_trainer_config_t *config = t->config;
  const uint32_t count = config->data.count;
  const uint32_t left = count - t->next;
  const uint32_t batch = (left < t->batch_size) ? left : t->batch_size;
  float *gradient = config->arena;
  float *features = activations_of(t);
  fm_status_t status = FM_DONE;
  if (work->steps < t->planned_steps) {
    (void)memset(gradient, 0, (size_t)fm_train_parameters(config->widths, config->layers) * sizeof *gradient);
    bool sound = true;
    for (uint32_t i = 0u; (i < batch) && sound; i++) {
      const uint32_t index = permuted(t->next + i, count, t->seed ^ mix(t->epoch));
      uint32_t label = 0u;
      sound = read_example(t, &config->data, index, features, &label);
      if (sound) {
        add_loss(t, fm_train_gradient(t, features, label, gradient));
      }
    }
    sound = sound && (t->loss_sum <= LARGEST_FLOAT); /* not if it is NaN */
    status = sound ? step_end(t, work, gradient, batch) : FM_ERR_TRAINING;
  }
  return status;
}

fm_status_t fm_trainer_evaluate(void *trainer, fm_work_t *work) {
  fm_trainer_t *t = (fm_trainer_t *)trainer;
  const fm_trainer_config_t *config = t->config;
  const fm_dataset_t *data = (config->evaluation.count != 0u) ? &config->evaluation : &config->data;
  float *activations = activations_of(t);
  const uint32_t classes = config->widths[config->layers];
  fm_status_t status = FM_OK;
  for (uint32_t i = 0u; (i < t->batch_size) && (t->next < data->count); i++) {
    uint32_t label = 0u;
    uint32_t best = 0u;
    if (!read_example(t, data, t->next, activations, &label)) {
      status = FM_ERR_TRAINING;
      break;
    }
    float *logits = &activations[forward(trainer, activations)];
    for (uint32_t j = 1u; j < classes; j++) {
      best = (logits[j] > logits[best]) ? j : best;
    }
    work->correct += (best == label) ? 1u : 0u;
    add_loss(t, softmax(logits, classes, label));
    t->next++;
  }
  work->steps++;
  work->planned_steps = (data->count + t->batch_size - 1u) / t->batch_size;
  work->examples = t->next;
  work->loss = t->loss_sum / (float)t->next;
  if ((status == FM_OK) && (t->next >= data->count)) {
    status = FM_DONE;
  }
  return status;
}

fm_app_t fm_trainer_app(fm_trainer_t *trainer) {
  const fm_app_t app = {trainer,
                        fm_trainer_begin,
                        fm_trainer_step,
                        fm_trainer_evaluate,
                        NULL,
                        NULL,
                        (FM_WITH_QUERY != 0) ? fm_trainer_query : NULL};
  return app;
}
