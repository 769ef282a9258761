/* SPDX-License-Identifier: Apache-2.0 */
/* lwIP on the board's Ethernet controller. One network, so there is no handle. */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stdint.h>

#include "lwip/ip_addr.h"

/* IPv4 addresses as text; `address` NULL: ask a DHCP server for all three (where built with FEDMOTE_DHCP). */
typedef struct {
  uint8_t mac[6];
  const char *address;
  const char *mask;
  const char *gateway;
  uint32_t seed; /* of ports and sequence numbers: new at each start, and hard to guess */
} net_config_t;

/* Start lwIP. False: there is no Ethernet controller, or an address is not valid. */
bool net_start(const net_config_t *config);

/* Read the received frames and run lwIP's timers. Returns how many milliseconds the caller may sleep if no frame
 * arrives. */
uint32_t net_poll(void);

#endif
