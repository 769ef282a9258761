/* SPDX-License-Identifier: Apache-2.0 */
/* Optional training on the device: dense layers, ReLU, softmax cross-entropy, SGD with mini-batches, the FedProx term.
 * float32, no heap, no libm; the caller provides one arena. One call of the training step is one mini-batch. */
#ifndef FM_TRAIN_H
#define FM_TRAIN_H

#include <stdint.h>

#include "fedmote/fm_client.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef FM_TRAIN_MAX_LAYERS
#define FM_TRAIN_MAX_LAYERS 4
#endif

/* Local examples. `read` must return the same example for the same index, with label < the last layer's width, and must
 * not block for long. */
typedef struct {
  uint32_t count; /* 1 to 2^30 */
  void (*read)(void *user, uint32_t index, float *features, uint32_t *label);
  void *user;
} fm_dataset_t;

/* The caller owns everything that this struct points to; all of it must outlive the trainer. */
typedef struct {
  const uint32_t *widths;     /* layers + 1 numbers: features, hidden units ..., classes; each 1 to 65535 */
  uint32_t layers;            /* 1 to FM_TRAIN_MAX_LAYERS */
  const fm_tensor_t *tensors; /* 2 * layers: kernel then bias of each layer, in RAM (`data`), `base` for FedProx */
  fm_dataset_t data;
  fm_dataset_t evaluation; /* count 0: `data` */
  uint32_t seed;           /* of the order of examples, mixed with the plan's */
  float *arena;            /* fm_train_arena_floats() floats */
  uint32_t arena_floats;
} fm_trainer_config_t;

/* One trainer. Public so that its size is known; touch nothing. */
typedef struct {
  const fm_trainer_config_t *config;
  float learning_rate;
  float prox_mu;
  uint32_t batch_size;
  uint32_t steps_an_epoch;
  uint32_t planned_steps;
  uint32_t seed;
  uint32_t next; /* example of the epoch (or of the evaluation) to come */
  uint32_t epoch;
  float loss_sum;
  float loss_error; /* what rounding has taken from loss_sum, with the sign changed */
} fm_trainer_t;

/* Return the floats of arena for a network: its gradient, and one example's activations and errors. */
uint32_t fm_train_arena_floats(const uint32_t *widths, uint32_t layers);

/* Return the number of parameters of a network: the sum of in * out + out over its layers. */
uint32_t fm_train_parameters(const uint32_t *widths, uint32_t layers);

/* Fill in the 2 * layers entries of a table of tensors over one array of fm_train_parameters() floats, and one as large
 * for the base or NULL. Kernels are row-major [in][out], as in x W + b. Names: dense0.kernel, dense0.bias,
 * dense1.kernel, ... */
void fm_train_tensors(const uint32_t *widths, uint32_t layers, float *parameters, float *base, fm_tensor_t *tensors);

/* Initialize kernels uniformly in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010, eq. 16) and biases to 0. Needed only
 * by a device that trains alone; in a federation the server's model overwrites them. */
void fm_train_randomize(const uint32_t *widths, uint32_t layers, uint32_t seed, float *parameters);

/* FM_ERR_ARGUMENT: a field missing or out of range, tensors that do not fit the widths. FM_ERR_BUFFER: arena too small.
 */
fm_status_t fm_trainer_init(fm_trainer_t *trainer, const fm_trainer_config_t *config);

/* Return callbacks for the client that use this trainer. */
fm_app_t fm_trainer_app(fm_trainer_t *trainer);

/* The callbacks one by one, for applications that wrap them; `trainer` is an fm_trainer_t. */
fm_status_t fm_trainer_begin(void *trainer, const fm_plan_t *plan, fm_work_t *work);
fm_status_t fm_trainer_step(void *trainer, fm_work_t *work);
fm_status_t fm_trainer_evaluate(void *trainer, fm_work_t *work);
/* Fields "label", and "feature0", "feature1", ... of the training data; up to 32 examples a call. */
fm_status_t fm_trainer_query(void *trainer, const fm_plan_t *plan, fm_histogram_t *answer);

/* Count one value in the answer to `plan`. A NaN counts as plan->query_low. */
void fm_histogram_add(fm_histogram_t *answer, const fm_plan_t *plan, float value);

/* Add one example's gradient of the loss to `gradient` (fm_train_parameters() floats, in the tensors' order) and return
 * its loss. */
float fm_train_gradient(const fm_trainer_t *trainer, const float *features, uint32_t label, float *gradient);

/* exp and log in float32, relative error below 4e-7 where the result is a normal number (log: absolute below 4e-7 near
 * 1). */
float fm_train_exp(float x);
float fm_train_log(float x);

#ifdef __cplusplus
}
#endif

#endif
