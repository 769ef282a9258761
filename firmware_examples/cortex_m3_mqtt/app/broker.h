/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BROKER_H
#define BROKER_H

#include <stdbool.h>

#include "fedmote/fm_link.h"

/* The byte stream to FEDMOTE_BROKER: TCP, with FEDMOTE_TLS under TLS. False: its address is none, or TLS lacks what it
 * needs. One broker, so there is no handle. */
bool broker_stream(fm_stream_t *stream);

#endif
