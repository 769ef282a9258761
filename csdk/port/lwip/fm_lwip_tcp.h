/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connection of lwIP 2.1's raw API as a byte stream. Use the stream from the thread in which
 * lwIP itself runs: the main loop with NO_SYS=1, or the tcpip thread. No call blocks.
 *
 * The memory is lwIP's: one tcp_pcb, up to five pbufs with at most TCP_WND received bytes, and a copy of at most
 * TCP_SND_BUF written bytes. For lwIP's heap (MEM_SIZE) count 2 x TCP_WND + 1.2 x TCP_SND_BUF. For its pool
 * (PBUF_POOL_SIZE) count at least 7 + TCP_OOSEQ_MAX_PBUFS. */
#ifndef FM_LWIP_TCP_H
#define FM_LWIP_TCP_H

#include "fedmote/fm_link.h"
#include "lwip/ip_addr.h"

struct pbuf;
struct tcp_pcb;

/* Public so that its size is known; touch nothing. */
typedef struct {
  ip_addr_t address;
  uint16_t port;
  uint8_t state;
  struct tcp_pcb *pcb;   /* NULL: closed, or broken */
  struct pbuf *received; /* not yet read */
} fm_lwip_tcp_t;

/* Fill in *stream. `address` is copied. Nothing is opened yet. */
void fm_lwip_tcp_init(fm_lwip_tcp_t *tcp, const ip_addr_t *address, uint16_t port, fm_stream_t *stream);

#endif
