/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP stream of systems with sockets, while signals arrive. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"
#include "fm_posix_tcp.h"

#define SIGNALS 2000

static volatile sig_atomic_t signals;

static void count(int number) {
  (void)number;
  signals++;
}

/* Return a port whose queue of connections is full, so that a further attempt stays pending. */
static int full_port(int *listener) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  *listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(*listener, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(listen(*listener, 0) == 0);
  CHECK(getsockname(*listener, (struct sockaddr *)&address, &size) == 0);
  for (int i = 0; i < 4; i++) {
    const int filler = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fcntl(filler, F_SETFL, O_NONBLOCK) == 0);
    (void)connect(filler, (struct sockaddr *)&address, sizeof address);
  }
  return ntohs(address.sin_port);
}

/* A signal during poll() says nothing about the attempt to connect. */
static void test_signals_while_connecting(void) {
  const struct itimerval often = {{0, 200}, {0, 200}};
  const struct itimerval never = {{0, 0}, {0, 0}};
  struct sigaction action;
  char port[8];
  fm_stream_t stream;
  fm_posix_tcp_t tcp;
  int listener;
  uint32_t failed = 0u;
  (void)snprintf(port, sizeof port, "%d", full_port(&listener));
  memset(&action, 0, sizeof action);
  action.sa_handler = count;
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  fm_posix_tcp_init(&tcp, "127.0.0.1", port, &stream);
  CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
  while (signals < SIGNALS) {
    failed += (stream.api->open(stream.self) == FM_AGAIN) ? 0u : 1u;
  }
  CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
  CHECK(failed == 0u);
  stream.api->close(stream.self);
  (void)close(listener);
}

int main(void) {
  test_signals_while_connecting();
  return check_report();
}
