/* SPDX-License-Identifier: Apache-2.0 */
/* What is learned: MODEL_INPUTS -> MODEL_HIDDEN (ReLU) -> 10 classes. The build sets the first two. */
#ifndef MODEL_H
#define MODEL_H

#include "fedmote/fm_wire.h"

#define MODEL_CLASSES 10u

/* How an update may be sent. */
#define MODEL_ENCODINGS ((1u << FM_ENCODING_FLOAT32) | (1u << FM_ENCODING_INT8))
#define MODEL_PREFER_DELTA true

#endif
