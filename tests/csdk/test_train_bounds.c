/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer with hostile plans and with data that are wrong or very many. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fedmote/fm_train.h"

#define MOST 200

static float parameters[MOST], arena[2 * MOST];
static fm_tensor_t tensors[4];
static float features[20][6];
static uint32_t labels[20];
static uint32_t widths[3];
static fm_trainer_t trainer;
static fm_trainer_config_t config;

static void read_example(void *user, uint32_t index, float *out, uint32_t *label) {
  (void)user;
  memcpy(out, features[index], widths[0] * sizeof(float));
  *label = labels[index];
}

static void read_first(void *user, uint32_t index, float *out, uint32_t *label) {
  (void)index;
  read_example(user, 0u, out, label);
}

static void setup(const uint32_t *shape, uint32_t layers, uint32_t examples) {
  memset(&config, 0, sizeof config);
  memcpy(widths, shape, (layers + 1u) * sizeof *widths);
  for (uint32_t i = 0u; i < examples; i++) {
    for (uint32_t j = 0u; j < widths[0]; j++) {
      features[i][j] = (float)((i * 7u + j * 3u) % 11u) / 11.0f;
    }
    labels[i] = i % 2u;
  }
  fm_train_randomize(widths, layers, 7u, parameters);
  fm_train_tensors(widths, layers, parameters, NULL, tensors); /* no tensor has a base */
  config.widths = widths;
  config.layers = layers;
  config.tensors = tensors;
  config.data.count = examples;
  config.data.read = read_example;
  config.arena = arena;
  config.arena_floats = 2u * MOST;
  CHECK(fm_trainer_init(&trainer, &config) == FM_OK);
}

/* Plans, labels and features that must not be trained with. Each is refused, and the model stays as it is. */
static void test_hostile_plans_and_data(void) {
  const uint32_t shape[3] = {6u, 8u, 2u};
  const float bad[] = {INFINITY, -INFINITY, NAN, -1.0f, 2e6f};
  fm_plan_t plan = {0};
  fm_work_t work = {0};
  float before[MOST];
  setup(shape, 2u, 20u);
  plan.epochs = 1u;
  plan.batch_size = 4u;
  for (uint32_t i = 0u; i < 5u; i++) {
    plan.learning_rate = bad[i];
    plan.prox_mu = 0.0f;
    CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_ERR_TRAINING);
    plan.learning_rate = 0.1f;
    plan.prox_mu = bad[i];
    CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_ERR_TRAINING);
  }
  plan.prox_mu = 0.0f;
  memcpy(before, parameters, sizeof before);
  for (uint32_t i = 0u; i < 20u; i++) {
    labels[i] = 2u + i; /* the classes are 0 and 1 */
  }
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  CHECK(fm_trainer_step(&trainer, &work) == FM_ERR_TRAINING);
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  CHECK(fm_trainer_evaluate(&trainer, &work) == FM_ERR_TRAINING);
  for (uint32_t i = 0u; i < 3u; i++) { /* infinities and NaN: ReLU must not hide them */
    setup(shape, 2u, 20u);
    for (uint32_t j = 0u; j < 20u; j++) {
      features[j][3] = bad[i];
    }
    memset(&work, 0, sizeof work);
    CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
    CHECK(fm_trainer_step(&trainer, &work) == FM_ERR_TRAINING);
    CHECK((work.steps == 0u) && (memcmp(before, parameters, sizeof before) == 0));
  }
  CHECK(isinf(fm_train_exp(NAN)) && isinf(fm_train_exp(INFINITY)) && (fm_train_exp(-INFINITY) == 0.0f));
}

/* Two million examples of one loss have that loss, to six digits. */
static void test_the_loss_of_very_many_examples(void) {
  const uint32_t shape[2] = {1u, 2u};
  fm_plan_t plan = {0};
  fm_work_t work = {0};
  setup(shape, 1u, 1u);
  memset(parameters, 0, sizeof parameters); /* both classes are as probable: the loss is ln 2 */
  config.data.read = read_first;
  config.data.count = 2000000u;
  plan.epochs = 1u;
  plan.batch_size = 60000u;
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  while (fm_trainer_evaluate(&trainer, &work) == FM_OK) {
  }
  CHECK((work.examples == 2000000u) && (fabsf(work.loss - 0.693147f) < 1e-6f));
}

/* A weight that is NaN shows in the loss, also at a class that is neither the first nor the label's. */
static void test_a_model_with_nan(void) {
  const uint32_t shape[2] = {6u, 4u};
  fm_plan_t plan = {0};
  fm_work_t work = {0};
  setup(shape, 1u, 20u); /* the labels are 0 and 1 */
  plan.epochs = 1u;
  plan.batch_size = 4u;
  parameters[6u * 4u + 3u] = NAN; /* the bias of the last class */
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  CHECK(fm_trainer_step(&trainer, &work) == FM_ERR_TRAINING);
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  (void)fm_trainer_evaluate(&trainer, &work);
  CHECK(!isfinite(work.loss));
}

/* Examples to evaluate without a function that reads them. */
static void test_no_evaluation_without_read(void) {
  const uint32_t shape[2] = {6u, 4u};
  setup(shape, 1u, 20u);
  config.evaluation.count = 5u;
  CHECK(fm_trainer_init(&trainer, &config) == FM_ERR_ARGUMENT);
  config.evaluation.read = read_example;
  CHECK(fm_trainer_init(&trainer, &config) == FM_OK);
}

int main(void) {
  test_hostile_plans_and_data();
  test_the_loss_of_very_many_examples();
  test_a_model_with_nan();
  test_no_evaluation_without_read();
  return check_report();
}
