/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <string.h>

/* --------------------------------------------------------------------------------------------------------- pipe */

static fm_status_t pipe_open(void *self) {
  fmb_pipe_t *pipe = self;
  if (pipe->connected && !pipe->open) {
    pipe->open = true;
    pipe->out_fill = 0u;
  }
  return pipe->connected ? FM_OK : FM_ERR_LINK;
}

static int32_t pipe_read(void *self, uint8_t *out, uint32_t size) {
  fmb_pipe_t *pipe = self;
  int32_t result = -1;
  if (pipe->connected && pipe->open) {
    uint32_t count = (size < pipe->in_left) ? size : pipe->in_left;
    count = (count < pipe->budget) ? count : pipe->budget;
    if (count > 0u) {
      (void)memcpy(out, pipe->in, count);
      pipe->in += count;
      pipe->in_left -= count;
      pipe->budget -= count;
    }
    result = (int32_t)count;
  }
  return result;
}

static int32_t pipe_write(void *self, const uint8_t *bytes, uint32_t size) {
  fmb_pipe_t *pipe = self;
  int32_t result = -1;
  if (pipe->connected && pipe->open) {
    const uint32_t room = pipe->out_size - pipe->out_fill;
    const uint32_t count = (size < room) ? size : room;
    if (count > 0u) {
      (void)memcpy(&pipe->out[pipe->out_fill], bytes, count);
      pipe->out_fill += count;
    }
    result = (int32_t)count;
  }
  return result;
}

static void pipe_close(void *self) {
  fmb_pipe_t *pipe = self;
  pipe->open = false;
}

fm_stream_t fmb_pipe_stream(fmb_pipe_t *pipe) {
  static const fm_stream_api_t api = {pipe_open, pipe_read, pipe_write, pipe_close};
  const fm_stream_t stream = {&api, pipe};
  return stream;
}

/* --------------------------------------------------------------------------------------------------------- gate */

static void gate_close(void *self) {
  fmb_gate_t *gate = self;
  gate->open = false;
  gate->below.api->close(gate->below.self);
}

static fm_status_t gate_open(void *self) {
  fmb_gate_t *gate = self;
  fm_status_t status = FM_ERR_LINK;
  if (gate->away) {
    gate_close(gate);
  } else {
    status = gate->below.api->open(gate->below.self);
    gate->open = (status == FM_OK);
  }
  return status;
}

static int32_t gate_read(void *self, uint8_t *out, uint32_t size) {
  fmb_gate_t *gate = self;
  return gate->open ? gate->below.api->read(gate->below.self, out, size) : -1;
}

static int32_t gate_write(void *self, const uint8_t *bytes, uint32_t size) {
  fmb_gate_t *gate = self;
  return gate->open ? gate->below.api->write(gate->below.self, bytes, size) : -1;
}

fm_stream_t fmb_gate_stream(fmb_gate_t *gate) {
  static const fm_stream_api_t api = {gate_open, gate_read, gate_write, gate_close};
  const fm_stream_t stream = {&api, gate};
  return stream;
}

void fmb_gate_cut(fmb_gate_t *gate) {
  gate->away = true;
  gate_close(gate);
}

/* -------------------------------------------------------------------------------------------------------- inbox */

#define PREFIX 4u

static void inbox_begin(void *user, uint32_t total) {
  fmb_inbox_t *inbox = user;
  const uint32_t room = inbox->size - inbox->fill;
  inbox->total = total;
  inbox->at = 0u;
  inbox->skipping = (room < PREFIX) || (total > (room - PREFIX));
  if (inbox->skipping) {
    inbox->oversized++;
  }
}

static void inbox_data(void *user, const uint8_t *bytes, uint32_t size) {
  fmb_inbox_t *inbox = user;
  if (!inbox->skipping && (size <= (inbox->total - inbox->at))) {
    (void)memcpy(&inbox->bytes[inbox->fill + PREFIX + inbox->at], bytes, size);
    inbox->at += size;
  }
}

static void inbox_end(void *user, bool complete) {
  fmb_inbox_t *inbox = user;
  if (complete && !inbox->skipping && (inbox->at == inbox->total)) {
    (void)memcpy(&inbox->bytes[inbox->fill], &inbox->total, PREFIX);
    inbox->fill += PREFIX + inbox->total;
    inbox->messages++;
  }
  inbox->skipping = true;
}

void fmb_inbox_clear(fmb_inbox_t *inbox) {
  if (!inbox->skipping && (inbox->fill > 0u)) {
    (void)memmove(&inbox->bytes[PREFIX], &inbox->bytes[inbox->fill + PREFIX], inbox->at);
  }
  inbox->fill = 0u;
  inbox->messages = 0u;
}

fm_sink_t fmb_inbox_sink(fmb_inbox_t *inbox) {
  const fm_sink_t sink = {inbox, inbox_begin, inbox_data, inbox_end};
  return sink;
}

/* ------------------------------------------------------------------------------------------------------ mailbox */

static fm_status_t mailbox_poll(void *self, uint32_t now_ms, const fm_sink_t *sink, uint32_t *wait_ms) {
  fmb_mailbox_t *mailbox = self;
  (void)now_ms;
  (void)wait_ms;
  if (mailbox->in != NULL) {
    sink->begin(sink->user, mailbox->in_size);
    sink->data(sink->user, mailbox->in, mailbox->in_size);
    sink->end(sink->user, true);
    mailbox->in = NULL;
  }
  return FM_OK;
}

static uint32_t mailbox_connection(const void *self) {
  const fmb_mailbox_t *mailbox = self;
  return mailbox->connection;
}

static fm_status_t mailbox_send(void *self, const fm_outgoing_t *message, fm_delivery_t delivery) {
  fmb_mailbox_t *mailbox = self;
  fm_status_t status = FM_AGAIN;
  if ((mailbox->connection != 0u) && !mailbox->sending) {
    mailbox->outgoing = *message;
    mailbox->delivery = (uint8_t)delivery;
    mailbox->sending = true;
    status = FM_OK;
  }
  return status;
}

static bool mailbox_sending(const void *self) {
  const fmb_mailbox_t *mailbox = self;
  return mailbox->sending;
}

static void mailbox_abort(void *self) {
  fmb_mailbox_t *mailbox = self;
  mailbox->sending = false;
}

static fm_status_t mailbox_fetch(void *self, uint32_t version, uint32_t index) {
  fmb_mailbox_t *mailbox = self;
  fm_status_t status = FM_AGAIN;
  if (mailbox->connection != 0u) {
    mailbox->fetching = true;
    mailbox->fetch_version = version;
    mailbox->fetch_index = index;
    status = FM_OK;
  }
  return status;
}

fm_link_t fmb_mailbox_link(fmb_mailbox_t *mailbox) {
  static const fm_link_api_t fetching = {mailbox_poll,    mailbox_connection, mailbox_send,
                                         mailbox_sending, mailbox_abort,      mailbox_fetch};
  static const fm_link_api_t requesting = {mailbox_poll,    mailbox_connection, mailbox_send,
                                           mailbox_sending, mailbox_abort,      NULL};
  const fm_link_t link = {mailbox->fetch_by_request ? &requesting : &fetching, mailbox};
  return link;
}

void fmb_mailbox_connect(fmb_mailbox_t *mailbox) {
  if (mailbox->connection == 0u) {
    mailbox->connections++;
    mailbox->connections += (mailbox->connections == 0u) ? 1u : 0u;
    mailbox->connection = mailbox->connections;
  }
}

void fmb_mailbox_disconnect(fmb_mailbox_t *mailbox) {
  mailbox->connection = 0u;
  mailbox->fetching = false;
  mailbox->in = NULL;
  if (mailbox->delivery == (uint8_t)FM_AT_MOST_ONCE) {
    mailbox->sending = false;
  }
}

uint32_t fmb_mailbox_waiting(const fmb_mailbox_t *mailbox) {
  const bool waiting = mailbox->sending && (mailbox->connection != 0u);
  return waiting ? (mailbox->outgoing.head_size + mailbox->outgoing.body_size) : 0u;
}

fm_status_t fmb_mailbox_take(fmb_mailbox_t *mailbox, uint8_t *out) {
  const fm_outgoing_t *message = &mailbox->outgoing;
  fm_status_t status = FM_OK;
  (void)memcpy(out, message->head, message->head_size);
  if (message->body_size > 0u) {
    status = message->read(message->user, 0u, &out[message->head_size], message->body_size);
  }
  mailbox->sending = false;
  return status;
}
