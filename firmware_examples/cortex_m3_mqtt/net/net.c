/* SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include "board.h"
#include "lan9118.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

#define FRAMES_A_POLL 8u /* as many as the pool holds */

static struct netif netif;
static uint32_t random_state;

/* ---- functions that lwIP calls ---- */

uint32_t sys_now(void) { return board_now_ms(); }

uint32_t net_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

void net_assert(const char *what) {
  board_log(NULL, what);
  board_stop();
}

/* ---- frames ---- */

/* A frame may lie in several pieces of memory, but the controller takes one. A frame for which it has no room is lost,
 * as on a wire, and TCP sends it again. */
static err_t send_frame(struct netif *interface, struct pbuf *frame) {
  static uint8_t whole[LAN9118_MOST];
  err_t error = ERR_BUF;
  (void)interface;
  if (frame->tot_len <= sizeof whole) {
    (void)pbuf_copy_partial(frame, whole, frame->tot_len, 0u);
    error = lan9118_send(whole, frame->tot_len) ? ERR_OK : ERR_MEM;
  }
  return error;
}

static void receive_frame(uint32_t size) {
  struct pbuf *frame = pbuf_alloc(PBUF_RAW, (u16_t)size, PBUF_POOL);
  if ((frame == NULL) || (frame->next != NULL)) {
    lan9118_drop(size); /* no memory for it: TCP sends it again */
  } else {
    lan9118_take((uint8_t *)frame->payload, size);
  }
  if ((frame != NULL) && ((frame->next != NULL) || (netif.input(frame, &netif) != ERR_OK))) {
    (void)pbuf_free(frame);
  }
}

static err_t init_netif(struct netif *interface) {
  interface->name[0] = 'e';
  interface->name[1] = 'n';
  interface->mtu = 1500u;
  interface->hwaddr_len = ETH_HWADDR_LEN;
  interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
  interface->output = etharp_output;
  interface->linkoutput = send_frame;
  return lan9118_start(interface->hwaddr) ? ERR_OK : ERR_IF;
}

/* ---- start and poll ---- */

static bool parse(const char *text, ip4_addr_t *address) { return ip4addr_aton(text, address) != 0; }

static bool addresses(const net_config_t *config, ip4_addr_t out[3]) {
  bool good = true;
  for (uint32_t i = 0u; i < 3u; i++) {
    ip4_addr_set_zero(&out[i]);
  }
  if (config->address != NULL) {
    good = parse(config->address, &out[0]) && parse(config->mask, &out[1]) && parse(config->gateway, &out[2]);
  }
  return good;
}

bool net_start(const net_config_t *config) {
  ip4_addr_t address[3];
  bool up = false;
  random_state = (config->seed != 0u) ? config->seed : 1u;
  lwip_init();
  for (uint32_t i = 0u; i < ETH_HWADDR_LEN; i++) {
    netif.hwaddr[i] = config->mac[i];
  }
  if (addresses(config, address) &&
      (netif_add(&netif, &address[0], &address[1], &address[2], NULL, init_netif, ethernet_input) != NULL)) {
    netif_set_default(&netif);
    netif_set_up(&netif);
    netif_set_link_up(&netif);
    up = true;
#if FEDMOTE_DHCP
    up = (config->address != NULL) || (dhcp_start(&netif) == ERR_OK);
#endif
  }
  return up;
}

uint32_t net_poll(void) {
  uint32_t size = lan9118_next();
  uint32_t frames = 0u;
  while (size != 0u) {
    receive_frame(size);
    frames++;
    size = (frames < FRAMES_A_POLL) ? lan9118_next() : 0u;
  }
  sys_check_timeouts();
  return (frames < FRAMES_A_POLL) ? sys_timeouts_sleeptime() : 0u;
}
