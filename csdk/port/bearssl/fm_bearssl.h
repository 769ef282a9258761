/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.2 by BearSSL 0.6 as a byte stream over another one. The peer must show a certificate chain that leads to one of
 * the trust anchors, is valid now, and is for `host`. These checks cannot be switched off.
 *
 * ECDHE with ChaCha20-Poly1305 or AES-128-GCM; ECDSA or RSA certificates with SHA-256, SHA-384 or SHA-512; P-256,
 * P-384, P-521, Curve25519. The implementations take constant time even on processors whose multiplication to 64 bits
 * does not (Cortex-M3, M0). A session is resumed if the peer still knows it, which saves the elliptic curves.
 *
 * No call waits, but a full handshake needs much arithmetic, most of it within one call. On a Cortex-M3 with
 * certificates on P-256 that is 54 million instructions, or two to three seconds at 25 MHz. */
#ifndef FM_BEARSSL_H
#define FM_BEARSSL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bearssl.h"
#include "fedmote/fm_link.h"

/* The stream asks the peer for records that fit the buffer (RFC 6066, section 4). OpenSSL, wolfSSL, Mbed TLS and
 * BearSSL send such records. For a peer that does not, use FM_BEARSSL_BUFFER_ANY. */
#define FM_BEARSSL_BUFFER_LEAST (512u + 325u + 512u + 85u)
#define FM_BEARSSL_BUFFER_ANY (16384u + 325u + 512u + 85u)

/* Everything is the caller's and must outlive the stream. */
typedef struct {
  fm_stream_t below;
  const char *host; /* a DNS name, as the certificate spells it; an IP address does not work */
  const br_x509_trust_anchor *anchors;
  uint32_t anchor_count;
  /* Write bytes that nobody can guess, 32 for each handshake. False: there are none now, and the handshake fails. */
  bool (*random)(void *user, uint8_t *out, uint32_t size);
  /* Write the seconds since 1970. False: they are unknown, and the handshake fails. */
  bool (*unix_time)(void *user, uint32_t *seconds);
  /* The connection was given up for a BearSSL error (BR_ERR_*, such as BR_ERR_X509_NOT_TRUSTED). NULL: not called. */
  void (*failed)(void *user, int error);
  void *user;
  uint8_t *buffer; /* all but 597 bytes of it are for received records */
  uint32_t buffer_size;
} fm_bearssl_config_t;

/* One stream: 6.4 KB where pointers have 32 bits. Public so that its size is known; touch nothing. */
typedef struct {
  const fm_bearssl_config_t *config;
  uint8_t phase;
  bool broken;    /* the stream below */
  bool resumable; /* the session's handshake was completed once */
  br_ssl_client_context client;
  br_x509_minimal_context x509;
} fm_bearssl_t;

/* Check the config and fill in *stream. Keeps the pointer to `config`. Nothing is opened yet. FM_ERR_ARGUMENT: a
 * missing field, or a host of more than 255 bytes. FM_ERR_BUFFER: under FM_BEARSSL_BUFFER_LEAST. */
fm_status_t fm_bearssl_init(fm_bearssl_t *tls, const fm_bearssl_config_t *config, fm_stream_t *stream);

#endif
