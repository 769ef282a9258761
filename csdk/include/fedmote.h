/* SPDX-License-Identifier: Apache-2.0 */
/* All of the device library, for C and C++. Each header also stands alone, in C. */
#ifndef FEDMOTE_H
#define FEDMOTE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "fedmote/fm_client.h"
#include "fedmote/fm_codec.h"
#include "fedmote/fm_config.h"
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_keep.h"
#include "fedmote/fm_link.h"
#include "fedmote/fm_mqtt.h"
#include "fedmote/fm_serial.h"
#include "fedmote/fm_status.h"
#include "fedmote/fm_tensor.h"
#include "fedmote/fm_train.h"
#include "fedmote/fm_wire.h"

#ifdef __cplusplus
}
#endif

#endif
