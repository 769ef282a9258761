/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer against finite differences and against double-precision arithmetic written out here. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_train.h"

#define MOST 400

static float parameters[MOST], base[MOST], arena[2 * MOST], gradient[MOST];
static fm_tensor_t tensors[8];
static float features[40][6];
static uint32_t labels[40];
static uint32_t widths[5];
static fm_trainer_t trainer;
static fm_trainer_config_t config;

static void read_example(void *user, uint32_t index, float *out, uint32_t *label) {
  (void)user;
  memcpy(out, features[index], widths[0] * sizeof(float));
  *label = labels[index];
}

static void setup(const uint32_t *shape, uint32_t layers, uint32_t examples) {
  uint32_t random = 12345u;
  memset(&config, 0, sizeof config);
  for (uint32_t l = 0u; l <= layers; l++) {
    widths[l] = shape[l];
  }
  for (uint32_t i = 0u; i < examples; i++) {
    for (uint32_t j = 0u; j < widths[0]; j++) {
      random = random * 1664525u + 1013904223u;
      features[i][j] = (float)(random >> 8) / 8388608.0f - 1.0f;
    }
    labels[i] = (features[i][0] > 0.0f) ? 1u : 0u;
  }
  fm_train_randomize(widths, layers, 7u, parameters);
  memcpy(base, parameters, sizeof base);
  fm_train_tensors(widths, layers, parameters, base, tensors);
  config.widths = widths;
  config.layers = layers;
  config.tensors = tensors;
  config.data.count = examples;
  config.data.read = read_example;
  config.seed = 3u;
  config.arena = arena;
  config.arena_floats = 2u * MOST;
  CHECK(fm_trainer_init(&trainer, &config) == FM_OK);
}

/* The loss of one example in double, forward only. */
static double reference_loss(uint32_t example) {
  double in[64], out[64], sum = 0.0, largest = -1e300;
  uint32_t at = 0u;
  for (uint32_t j = 0u; j < widths[0]; j++) {
    in[j] = features[example][j];
  }
  for (uint32_t l = 0u; l < config.layers; l++) {
    const uint32_t kernel = widths[l] * widths[l + 1u];
    for (uint32_t j = 0u; j < widths[l + 1u]; j++) {
      out[j] = parameters[at + kernel + j];
      for (uint32_t i = 0u; i < widths[l]; i++) {
        out[j] += in[i] * parameters[at + i * widths[l + 1u] + j];
      }
    }
    for (uint32_t j = 0u; j < widths[l + 1u]; j++) {
      in[j] = ((l + 1u < config.layers) && (out[j] < 0.0)) ? 0.0 : out[j];
    }
    at += kernel + widths[l + 1u];
  }
  for (uint32_t j = 0u; j < widths[config.layers]; j++) {
    largest = fmax(largest, in[j]);
  }
  for (uint32_t j = 0u; j < widths[config.layers]; j++) {
    sum += exp(in[j] - largest);
  }
  return log(sum) + largest - in[labels[example]];
}

static void test_gradient(const uint32_t *shape, uint32_t layers) {
  setup(shape, layers, 10u);
  const uint32_t count = fm_train_parameters(widths, layers);
  for (uint32_t example = 0u; example < 10u; example++) {
    memset(gradient, 0, sizeof gradient);
    const float loss = fm_train_gradient(&trainer, features[example], labels[example], gradient);
    CHECK(fabs(loss - reference_loss(example)) < 1e-5);
    for (uint32_t i = 0u; i < count; i++) {
      const float kept = parameters[i];
      const float up = kept + 2e-5f, down = kept - 2e-5f;
      parameters[i] = up;
      const double above = reference_loss(example);
      parameters[i] = down;
      const double below = reference_loss(example);
      parameters[i] = kept;
      CHECK(fabs((above - below) / ((double)up - (double)down) - gradient[i]) < 2e-4);
    }
  }
}

static void test_functions(void) {
  for (float x = -87.0f; x < 88.0f; x += 0.0137f) {
    CHECK(fabs(fm_train_exp(x) / exp(x) - 1.0) < 4e-7);
  }
  for (float x = 1e-30f; x < 1e30f; x *= 1.0713f) {
    CHECK(fabs(fm_train_log(x) - log(x)) < 4e-7 * fmax(1.0, fabs(log(x))));
  }
  CHECK(fm_train_exp(-1000.0f) == 0.0f);
  CHECK(isinf(fm_train_exp(1000.0f)));
}

static fm_plan_t make_plan(void) {
  fm_plan_t plan;
  memset(&plan, 0, sizeof plan);
  plan.round = 1u;
  plan.epochs = 3u;
  plan.batch_size = 7u;
  plan.learning_rate = 0.3f;
  plan.seed = 9u;
  return plan;
}

static fm_work_t run(const fm_plan_t *plan) {
  const fm_app_t app = fm_trainer_app(&trainer);
  fm_work_t work;
  fm_status_t status = FM_OK;
  memset(&work, 0, sizeof work);
  CHECK(app.work_begin(app.user, plan, &work) == FM_OK);
  while (status == FM_OK) {
    status = (plan->task == FM_TASK_FIT) ? app.train_step(app.user, &work) : app.evaluate_step(app.user, &work);
  }
  CHECK(status == FM_DONE);
  return work;
}

static void test_epochs(void) {
  const uint32_t shape[3] = {6u, 8u, 2u};
  fm_plan_t plan = make_plan();
  float once[MOST];
  setup(shape, 2u, 40u);
  fm_work_t work = run(&plan);
  CHECK(work.steps == 18u && work.planned_steps == 18u && work.examples == 40u); /* 5 of 7 and one of 5, three times */
  memcpy(once, parameters, sizeof once);
  setup(shape, 2u, 40u);
  (void)run(&plan);
  CHECK(memcmp(once, parameters, sizeof once) == 0); /* the same seed, the same bits */
  setup(shape, 2u, 40u);
  plan.seed++;
  (void)run(&plan);
  CHECK(memcmp(once, parameters, sizeof once) != 0);
  plan.max_steps = 4u;
  work = run(&plan);
  CHECK(work.steps == 4u && work.planned_steps == 4u && work.examples == 28u);
  plan.max_steps = 0u;
  plan.epochs = 60u;
  work = run(&plan);
  CHECK(work.loss < 0.1f);
  plan.task = FM_TASK_EVALUATE;
  work = run(&plan);
  CHECK(work.examples == 40u && work.correct >= 38u && work.loss < 0.1f);
  CHECK(work.steps == 6u && work.planned_steps == 6u);
}

/* One step over all examples: w - rate * (mean gradient + mu * (w - base)), in double. */
static void test_step_and_prox(void) {
  const uint32_t shape[2] = {4u, 3u};
  double expected[MOST];
  fm_plan_t plan = make_plan();
  setup(shape, 1u, 20u);
  const uint32_t count = fm_train_parameters(widths, 1u);
  for (uint32_t i = 0u; i < count; i++) {
    base[i] = parameters[i] - 0.25f;
  }
  memset(gradient, 0, sizeof gradient);
  for (uint32_t i = 0u; i < 20u; i++) {
    (void)fm_train_gradient(&trainer, features[i], labels[i], gradient);
  }
  for (uint32_t i = 0u; i < count; i++) {
    expected[i] = parameters[i] - 0.3 * (gradient[i] / 20.0 + 0.5 * 0.25);
  }
  plan.batch_size = 100u;
  plan.max_steps = 1u;
  plan.prox_mu = 0.5f;
  (void)run(&plan);
  for (uint32_t i = 0u; i < count; i++) {
    CHECK(fabs(parameters[i] - expected[i]) < 1e-6);
  }
  fm_train_tensors(widths, 1u, parameters, NULL, tensors);
  fm_work_t work;
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_ERR_TRAINING); /* FedProx without a base */
}

static void test_extreme_logits(void) {
  const uint32_t shape[2] = {4u, 3u};
  setup(shape, 1u, 4u);
  for (uint32_t i = 0u; i < 15u; i++) {
    parameters[i] = (i % 2u == 0u) ? 1e6f : -1e6f;
  }
  memset(gradient, 0, sizeof gradient);
  CHECK(isfinite(fm_train_gradient(&trainer, features[0], labels[0], gradient)));
  for (uint32_t i = 0u; i < 15u; i++) {
    CHECK(isfinite(gradient[i]));
  }
}

static void test_errors(void) {
  const uint32_t shape[3] = {6u, 8u, 2u};
#define EXPECT(status, change)                                                                                         \
  do {                                                                                                                 \
    setup(shape, 2u, 5u);                                                                                              \
    change;                                                                                                            \
    CHECK(fm_trainer_init(&trainer, &config) == (status));                                                             \
  } while (0)
  CHECK(fm_trainer_init(NULL, &config) == FM_ERR_ARGUMENT);
  CHECK(fm_trainer_init(&trainer, NULL) == FM_ERR_ARGUMENT);
  EXPECT(FM_OK, config.arena_floats = fm_train_arena_floats(widths, 2u));
  EXPECT(FM_ERR_BUFFER, config.arena_floats = fm_train_arena_floats(widths, 2u) - 1u);
  EXPECT(FM_ERR_ARGUMENT, config.layers = 0u);
  EXPECT(FM_ERR_ARGUMENT, config.layers = 5u);
  EXPECT(FM_ERR_ARGUMENT, config.widths = NULL);
  EXPECT(FM_ERR_ARGUMENT, widths[1] = 0u);
  EXPECT(FM_ERR_ARGUMENT, widths[1] = 65536u);
  EXPECT(FM_ERR_ARGUMENT, config.tensors = NULL);
  EXPECT(FM_ERR_ARGUMENT, config.arena = NULL);
  EXPECT(FM_ERR_ARGUMENT, config.data.count = 0u);
  EXPECT(FM_ERR_ARGUMENT, config.data.count = 0x40000001u);
  EXPECT(FM_ERR_ARGUMENT, config.data.read = NULL);
  EXPECT(FM_ERR_ARGUMENT, tensors[1].count++);
  EXPECT(FM_ERR_ARGUMENT, tensors[1].data = NULL);
}

/* More steps than a number holds are the most that it holds, not what is left of them. */
static void test_very_many_steps(void) {
  const uint32_t shape[2] = {6u, 3u};
  fm_plan_t plan = {0};
  fm_work_t work = {0};
  setup(shape, 1u, 5u);
  config.data.count = 131072u;
  CHECK(fm_trainer_init(&trainer, &config) == FM_OK);
  plan.epochs = 32768u;
  plan.batch_size = 1u;
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  CHECK(work.planned_steps == UINT32_MAX);
  plan.epochs = 32767u;
  CHECK(fm_trainer_begin(&trainer, &plan, &work) == FM_OK);
  CHECK(work.planned_steps == 131072u * 32767u);
}

static uint32_t answered; /* examples; 0: the query was declined */

static fm_histogram_t ask(const char *field, float low, float high, uint8_t bins) {
  fm_plan_t plan = {0};
  fm_histogram_t answer = {0};
  fm_status_t status = FM_OK;
  plan.query_field = fm_crc32(0u, field, (uint32_t)strlen(field));
  plan.query_low = low;
  plan.query_high = high;
  plan.query_bins = bins;
  while (status == FM_OK) {
    status = fm_trainer_query(&trainer, &plan, &answer);
  }
  answered = (status == FM_DONE) ? answer.count : 0u;
  return answer;
}

static void test_query(void) {
  const uint32_t shape[2] = {6u, 3u};
  uint32_t of_label[3] = {0u, 0u, 0u};
  float example[6];
  float sum = 0.0f;
  uint32_t below = 0u;
  setup(shape, 1u, 40u);
  for (uint32_t i = 0u; i < 40u; i++) {
    uint32_t label = 0u;
    config.data.read(config.data.user, i, example, &label);
    of_label[label]++;
    below += (example[5] < 0.0f) ? 1u : 0u;
    sum += example[5];
  }
  fm_histogram_t answer = ask("label", -0.5f, 2.5f, 3u);
  CHECK(answered == 40u);
  CHECK(memcmp(answer.counts, of_label, sizeof of_label) == 0);
  CHECK(answer.sum == (float)(of_label[1] + (2u * of_label[2])));
  answer = ask("feature5", -100.0f, 100.0f, 2u);
  CHECK((answered == 40u) && (answer.counts[0] == below) && (answer.counts[1] == (40u - below)));
  CHECK(fabsf(answer.sum - sum) < 1e-4f);
  (void)ask("feature6", 0.0f, 1.0f, 2u);
  CHECK(answered == 0u);
}

static void test_histogram(void) {
  fm_plan_t plan = {0};
  fm_histogram_t h = {0};
  const float values[7] = {-5.0f, 1.0f, 1.999f, 2.0f, 4.999f, 5.0f, 1e9f};
  const uint32_t expected[4] = {3u, 1u, 0u, 3u};
  plan.query_low = 1.0f;
  plan.query_high = 5.0f;
  plan.query_bins = 4u;
  for (uint32_t i = 0u; i < 7u; i++) {
    fm_histogram_add(&h, &plan, values[i]);
  }
  CHECK((h.count == 7u) && (memcmp(h.counts, expected, sizeof expected) == 0));
  CHECK(fabsf(h.sum - (1.0f + 1.0f + 1.999f + 2.0f + 4.999f + 5.0f + 5.0f)) < 1e-4f);
  fm_histogram_add(&h, &plan, nanf(""));
  CHECK(h.counts[0] == 4u);
  plan.query_high = 1.0f; /* a range of no width */
  fm_histogram_add(&h, &plan, 3.0f);
  CHECK((h.counts[0] == 5u) && (h.count == 9u));
  plan.query_low = 0.0f; /* whole numbers fall into their bins */
  plan.query_high = 30000.0f;
  plan.query_bins = 30u;
  for (uint32_t i = 0u; i < 30000u; i += 999u) {
    fm_histogram_t one = {0};
    fm_histogram_add(&one, &plan, (float)i);
    CHECK(one.counts[i / 1000u] == 1u);
  }
}

int main(void) {
  const uint32_t one[2] = {6u, 3u}, two[3] = {6u, 8u, 2u}, three[4] = {5u, 7u, 6u, 3u};
  test_gradient(one, 1u);
  test_gradient(two, 2u);
  test_gradient(three, 3u);
  test_functions();
  test_epochs();
  test_step_and_prox();
  test_extreme_logits();
  test_errors();
  test_very_many_steps();
  test_query();
  test_histogram();
  return check_report();
}
