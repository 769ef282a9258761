/* SPDX-License-Identifier: Apache-2.0 */
/* lwIP for one device with one connection: no operating system, no heap but lwIP's own array, pools of fixed size. */
#ifndef LWIPOPTS_H
#define LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0 /* interrupts never call lwIP */
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0

#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define LWIP_ICMP 1 /* answers ping */
#define LWIP_RAW 0
#define LWIP_TCP 1
#define LWIP_UDP FEDMOTE_DHCP
#define LWIP_DHCP FEDMOTE_DHCP
#define LWIP_DHCP_CHECK_LINK_UP 0
#define IP_REASSEMBLY 0
#define IP_FRAG 0

#define MEM_LIBC_MALLOC 0
#define MEMP_MEM_MALLOC 0
#define MEM_ALIGNMENT 4
#define MEM_SIZE 10240         /* see fm_lwip_tcp.h */
#define PBUF_POOL_SIZE 9       /* received frames that are not read yet */
#define PBUF_POOL_BUFSIZE 1536 /* one frame whole */
#define MEMP_NUM_TCP_PCB 3     /* one in use, two that close */
#define MEMP_NUM_TCP_PCB_LISTEN 1
#define MEMP_NUM_TCP_SEG 16
#define MEMP_NUM_ARP_QUEUE 4

#define TCP_MSS 1460
#define TCP_WND (2 * TCP_MSS)
#define TCP_OOSEQ_MAX_PBUFS 2
#define TCP_SND_BUF (2 * TCP_MSS)
#define TCP_LISTEN_BACKLOG 0
/* Different after each start, so that packets of an old connection are not taken for the new one's. */
#define LWIP_RANDOMIZE_INITIAL_LOCAL_PORTS 1
#define LWIP_HOOK_TCP_ISN(local, local_port, remote, remote_port) net_random()
#define LWIP_TCP_KEEPALIVE 0 /* MQTT has its own */

#define LWIP_STATS 0
#define LWIP_NETIF_HOSTNAME 0
#define LWIP_NETIF_TX_SINGLE_PBUF 0

#endif
