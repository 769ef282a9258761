/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_lwip_tcp.h"

#include <string.h>

#include "lwip/tcp.h"

#define MOST_PIECES 4u

enum {
  STREAM_CLOSED = 0,
  STREAM_CONNECTING,
  STREAM_OPEN,
  STREAM_ENDED /* the peer closed; bytes received before can still be read */,
  STREAM_BROKEN
};

static void drop_received(fm_lwip_tcp_t *tcp) {
  if (tcp->received != NULL) {
    (void)pbuf_free(tcp->received);
  }
  tcp->received = NULL;
}

/* ---- what lwIP calls ---- */

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t error) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)arg;
  (void)pcb;
  (void)error; /* always ERR_OK; failures come to on_error() */
  tcp->state = STREAM_OPEN;
  return ERR_OK;
}

static err_t on_received(void *arg, struct tcp_pcb *pcb, struct pbuf *data, err_t error) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)arg;
  (void)pcb;
  (void)error;
  if (data == NULL) {
    tcp->state = STREAM_ENDED;
  } else if (tcp->received == NULL) {
    tcp->received = data;
  } else {
    pbuf_cat(tcp->received, data);
    /* Acknowledgements arrive in the same pool, so unread data must not fill it, however small the segments. Without
     * acknowledgements nothing could be written, and a link that waits to write might not read. */
    if (pbuf_clen(tcp->received) > MOST_PIECES) {
      tcp->received = pbuf_coalesce(tcp->received, PBUF_RAW);
    }
  }
  return ERR_OK;
}

/* lwIP has freed the pcb already. */
static void on_error(void *arg, err_t error) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)arg;
  (void)error;
  tcp->pcb = NULL;
  tcp->state = STREAM_BROKEN;
}

/* ---- the stream ---- */

/* Close in order, so that written bytes still arrive. The lowest priority lets lwIP reuse this pcb first when it needs
 * another. */
static void tcp_stream_close(void *self) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)self;
  struct tcp_pcb *pcb = tcp->pcb;
  drop_received(tcp);
  tcp->pcb = NULL;
  tcp->state = STREAM_CLOSED;
  if (pcb != NULL) {
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_setprio(pcb, TCP_PRIO_MIN);
    if (tcp_close(pcb) != ERR_OK) {
      tcp_abort(pcb);
    }
  }
}

static fm_status_t start(fm_lwip_tcp_t *tcp) {
  fm_status_t status = FM_ERR_LINK;
  struct tcp_pcb *pcb = tcp_new_ip_type(IP_GET_TYPE(&tcp->address));
  if (pcb != NULL) {
    tcp->pcb = pcb;
    tcp->state = STREAM_CONNECTING;
    tcp_arg(pcb, tcp);
    tcp_recv(pcb, on_received);
    tcp_err(pcb, on_error);
    tcp_nagle_disable(pcb);
    if (tcp_connect(pcb, &tcp->address, tcp->port, on_connected) == ERR_OK) {
      status = FM_AGAIN;
    }
  }
  return status;
}

static fm_status_t tcp_stream_open(void *self) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)self;
  fm_status_t status = FM_ERR_LINK;
  if (tcp->state == (uint8_t)STREAM_CLOSED) {
    status = start(tcp);
  } else if (tcp->state == (uint8_t)STREAM_CONNECTING) {
    status = FM_AGAIN;
  } else if (tcp->state != (uint8_t)STREAM_BROKEN) {
    status = FM_OK;
  } else {
    /* refused, or the host does not answer */
  }
  if ((status != FM_OK) && (status != FM_AGAIN)) {
    tcp_stream_close(tcp);
  }
  return status;
}

static uint16_t take(fm_lwip_tcp_t *tcp, uint8_t *out, uint32_t size) {
  uint16_t count = 0u;
  if (tcp->received != NULL) {
    const uint16_t there = tcp->received->tot_len;
    count = (size < there) ? (uint16_t)size : there;
    (void)pbuf_copy_partial(tcp->received, out, count, 0u);
    tcp->received = pbuf_free_header(tcp->received, count);
  }
  return count;
}

/* Acknowledge at once when all was read and nothing was written that could carry the acknowledgement. lwIP would wait
 * up to 250 ms more. So would a peer that holds small packets back until earlier ones are acknowledged (Nagle), as
 * brokers do. */
static void acknowledge(struct tcp_pcb *pcb) {
  if ((pcb->flags & TF_ACK_DELAY) != 0u) {
    tcp_set_flags(pcb, TF_ACK_NOW);
    (void)tcp_output(pcb);
  }
}

static int32_t tcp_stream_read(void *self, uint8_t *out, uint32_t size) {
  fm_lwip_tcp_t *tcp = (fm_lwip_tcp_t *)self;
  const uint16_t count = take(tcp, out, size);
  int32_t result = count;
  if ((count == 0u) && (tcp->state == (uint8_t)STREAM_OPEN)) {
    acknowledge(tcp->pcb);
  } else if (count == 0u) {
    result = -1;
  } else if (tcp->pcb != NULL) {
    tcp_recved(tcp->pcb, count);
  } else {
    /* no window left to open */
  }
  return result;
}

static int32_t tcp_stream_write(void *self, const uint8_t *bytes, uint32_t size) {
  const fm_lwip_tcp_t *tcp = (const fm_lwip_tcp_t *)self;
  int32_t result = -1;
  if (tcp->state == (uint8_t)STREAM_OPEN) {
    const uint32_t room = tcp_sndbuf(tcp->pcb);
    const uint16_t count = (uint16_t)((size < room) ? size : room);
    result = 0;
    if ((count > 0u) && (tcp_write(tcp->pcb, bytes, count, TCP_WRITE_FLAG_COPY) == ERR_OK)) {
      (void)tcp_output(tcp->pcb); /* what it could not send now, lwIP's timer sends */
      result = (int32_t)count;
    }
  }
  return result;
}

void fm_lwip_tcp_init(fm_lwip_tcp_t *tcp, const ip_addr_t *address, uint16_t port, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tcp_stream_open, tcp_stream_read, tcp_stream_write, tcp_stream_close};
  (void)memset(tcp, 0, sizeof *tcp);
  ip_addr_copy(tcp->address, *address);
  tcp->port = port;
  stream->api = &api;
  stream->self = tcp;
}
