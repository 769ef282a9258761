/* SPDX-License-Identifier: Apache-2.0 */
#include "broker.h"
#include "fm_lwip_tcp.h"

bool broker_stream(fm_stream_t *stream) {
  static fm_lwip_tcp_t tcp;
  ip_addr_t address;
  const bool good = ipaddr_aton(FEDMOTE_BROKER_ADDRESS, &address) != 0;
  if (good) {
    fm_lwip_tcp_init(&tcp, &address, FEDMOTE_BROKER_PORT, stream);
  }
  return good;
}
