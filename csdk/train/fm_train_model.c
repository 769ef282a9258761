/* SPDX-License-Identifier: Apache-2.0 */
/* The network as a model: its tensors and their names. */
#include <string.h>

#include "fedmote/fm_train.h"

#if (FM_TRAIN_MAX_LAYERS < 1) || (FM_TRAIN_MAX_LAYERS > 4)
#error "FM_TRAIN_MAX_LAYERS must be from 1 to 4: the tensors of more layers have no names"
#endif

void fm_train_tensors(const uint32_t *widths, uint32_t layers, float *parameters, float *base, fm_tensor_t *tensors) {
  static const char *const names[8] = {"dense0.kernel", "dense0.bias", "dense1.kernel", "dense1.bias",
                                       "dense2.kernel", "dense2.bias", "dense3.kernel", "dense3.bias"};
  uint32_t at = 0u;
  for (uint32_t t = 0u; t < (2u * layers); t++) {
    const uint32_t l = t / 2u;
    const uint32_t count = ((t % 2u) == 0u) ? (widths[l] * widths[l + 1u]) : widths[l + 1u];
    (void)memset(&tensors[t], 0, sizeof tensors[t]);
    tensors[t].name = names[t];
    tensors[t].count = count;
    tensors[t].data = &parameters[at];
    tensors[t].base = (base != NULL) ? &base[at] : NULL;
    at += count;
  }
}
