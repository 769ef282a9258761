/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BROKER_H
#define BROKER_H

#include <stdbool.h>

#include "fedmote/fm_link.h"

/* Make the byte stream to FEDMOTE_BROKER: TCP, or with FEDMOTE_TLS TLS over TCP. False: its address is not valid, or
 * TLS refuses its settings. There is one broker, so there is no handle. */
bool broker_stream(fm_stream_t *stream);

#endif
