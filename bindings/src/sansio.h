/* SPDX-License-Identifier: Apache-2.0 */
/* A link of the device library without I/O. It turns bytes into messages and messages into bytes. */
#ifndef FMB_SANSIO_H
#define FMB_SANSIO_H

#include "fedmote/fm_mqtt.h"
#include "fedmote/fm_serial.h"
#include "memory.h"

typedef struct {
  fm_link_t link; /* set by the link's init */
  fmb_pipe_t pipe;
  fmb_inbox_t inbox;
  uint32_t wait_ms; /* after the last poll */
  fm_status_t status;
} fmb_sansio_t;

/* Poll the link with `size` bytes from the peer until they are used up, a message is complete, or the link can go no
 * further. Returns the bytes used. */
uint32_t fmb_sansio_poll(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, uint32_t now_ms);
/* Forget the complete messages, after they were read. */
void fmb_sansio_clear(fmb_sansio_t *self);
/* Send a message. The caller keeps `bytes` unchanged until fmb_sansio_sending() is false. Returns an fm_status_t. */
int fmb_sansio_send(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, bool reliable);
bool fmb_sansio_sending(const fmb_sansio_t *self);
uint32_t fmb_sansio_connection(const fmb_sansio_t *self);
/* Ask for a model chunk. FM_ERR_UNSUPPORTED: this link has no fetch(). */
int fmb_sansio_fetch(fmb_sansio_t *self, uint32_t version, uint32_t index);

typedef struct {
  fmb_sansio_t sansio;
  fm_mqtt_t mqtt;
  fm_mqtt_config_t config; /* set all but the stream before fmb_mqtt_init() */
} fmb_mqtt_link_t;

int fmb_mqtt_init(fmb_mqtt_link_t *self);

typedef struct {
  fmb_sansio_t sansio;
  fm_serial_t serial;
  fm_serial_config_t config; /* set all but stream and buffer before fmb_serial_init() */
  uint8_t buffer[FM_SERIAL_MIN_BUFFER];
} fmb_serial_link_t;

int fmb_serial_init(fmb_serial_link_t *self);

#endif
