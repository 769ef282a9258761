/* SPDX-License-Identifier: Apache-2.0 */
/* What is learned: 2 -> 8 (ReLU) -> 2 classes. */
#ifndef MODEL_H
#define MODEL_H

#include "fedmote/fm_wire.h"

#define MODEL_INPUTS 2u
#define MODEL_HIDDEN 8u
#define MODEL_CLASSES 2u

/* How an update may be sent. */
#define MODEL_ENCODINGS (1u << FM_ENCODING_FLOAT32)
#define MODEL_PREFER_DELTA false

#endif
