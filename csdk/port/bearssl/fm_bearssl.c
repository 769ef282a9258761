/* SPDX-License-Identifier: Apache-2.0 */
#include "fm_bearssl.h"

#include <string.h>

#define SEED_SIZE 32u
#define DAYS_TO_1970 719528u /* since January 1st, year 0 */
#define DAY_S 86400u
#define LONGEST_HOST 255u
#define ROUNDS_A_CALL 16u

enum { TLS_CLOSED = 0, TLS_OPENING /* below */, TLS_HANDSHAKE, TLS_OPEN };

/* ---- bytes between the engine and the stream below ---- */

static bool send_records(fm_bearssl_t *tls) {
  size_t size = 0u;
  int32_t moved = 0;
  const uint8_t *records = br_ssl_engine_sendrec_buf(&tls->client.eng, &size);
  if (records != NULL) {
    moved = tls->config->below.api->write(tls->config->below.self, records, (uint32_t)size);
    if (moved > 0) {
      br_ssl_engine_sendrec_ack(&tls->client.eng, (size_t)moved);
    }
  }
  tls->broken = tls->broken || (moved < 0);
  return moved > 0;
}

static bool receive_records(fm_bearssl_t *tls) {
  size_t size = 0u;
  int32_t moved = 0;
  uint8_t *room = br_ssl_engine_recvrec_buf(&tls->client.eng, &size);
  if (room != NULL) {
    moved = tls->config->below.api->read(tls->config->below.self, room, (uint32_t)size);
    if (moved > 0) {
      br_ssl_engine_recvrec_ack(&tls->client.eng, (size_t)moved);
    }
  }
  tls->broken = tls->broken || (moved < 0);
  return moved > 0;
}

/* This ends, because the engine takes no further record while one waits to be read. */
static void pump(fm_bearssl_t *tls) {
  bool moving = !tls->broken;
  for (uint32_t i = 0u; (i < ROUNDS_A_CALL) && moving; i++) {
    const bool sent = send_records(tls);
    moving = !tls->broken && receive_records(tls);
    moving = !tls->broken && (moving || sent);
  }
}

static bool ended(const fm_bearssl_t *tls) {
  return tls->broken || ((br_ssl_engine_current_state(&tls->client.eng) & BR_SSL_CLOSED) != 0u);
}

/* ---- the stream ---- */

/* A session that ended in an error must not be resumed (RFC 5246, section 7.2.2). */
static void report(fm_bearssl_t *tls) {
  const int error = br_ssl_engine_last_error(&tls->client.eng);
  tls->resumable = tls->resumable && (error == BR_ERR_OK);
  if ((error != BR_ERR_OK) && (tls->config->failed != NULL)) {
    tls->config->failed(tls->config->user, error);
  }
}

/* Send close_notify, if the stream below takes it at once. */
static void tls_close(void *self) {
  fm_bearssl_t *tls = (fm_bearssl_t *)self;
  if (tls->phase >= (uint8_t)TLS_HANDSHAKE) {
    report(tls);
  }
  if (tls->phase == (uint8_t)TLS_OPEN) {
    br_ssl_engine_close(&tls->client.eng);
    pump(tls);
  }
  tls->config->below.api->close(tls->config->below.self);
  tls->phase = TLS_CLOSED;
}

/* A session that was not completed must not be resumed: its peer may never have been checked. */
static bool begin(fm_bearssl_t *tls) {
  const fm_bearssl_config_t *config = tls->config;
  const bool resume = tls->resumable;
  uint8_t seed[SEED_SIZE];
  uint32_t seconds = 0u;
  const bool ready = config->random(config->user, seed, sizeof seed) && config->unix_time(config->user, &seconds);
  bool done = false;
  tls->resumable = false;
  tls->broken = false;
  if (ready) {
    br_x509_minimal_set_time(&tls->x509, DAYS_TO_1970 + (seconds / DAY_S), seconds % DAY_S);
    br_ssl_engine_set_buffer(&tls->client.eng, config->buffer, config->buffer_size, 1);
    br_ssl_engine_inject_entropy(&tls->client.eng, seed, sizeof seed);
    done = br_ssl_client_reset(&tls->client, config->host, resume ? 1 : 0) == 1;
  }
  return done;
}

static fm_status_t open_below(fm_bearssl_t *tls) {
  fm_status_t status = tls->config->below.api->open(tls->config->below.self);
  tls->phase = TLS_OPENING;
  if (status == FM_OK) {
    tls->phase = TLS_HANDSHAKE;
    status = begin(tls) ? FM_AGAIN : FM_ERR_LINK;
  }
  return status;
}

static fm_status_t shake_hands(fm_bearssl_t *tls) {
  fm_status_t status = FM_AGAIN;
  pump(tls);
  if ((br_ssl_engine_current_state(&tls->client.eng) & BR_SSL_SENDAPP) != 0u) {
    tls->phase = TLS_OPEN;
    tls->resumable = true;
    status = FM_OK;
  } else if (ended(tls)) {
    status = FM_ERR_LINK;
  } else {
    /* waiting for the peer */
  }
  return status;
}

static fm_status_t tls_open(void *self) {
  fm_bearssl_t *tls = (fm_bearssl_t *)self;
  fm_status_t status = FM_OK;
  if (tls->phase <= (uint8_t)TLS_OPENING) {
    status = open_below(tls);
  }
  if ((tls->phase == (uint8_t)TLS_HANDSHAKE) && (status != FM_ERR_LINK)) {
    status = shake_hands(tls);
  }
  if ((status != FM_OK) && (status != FM_AGAIN)) {
    tls_close(tls);
  }
  return status;
}

static int32_t tls_read(void *self, uint8_t *out, uint32_t size) {
  fm_bearssl_t *tls = (fm_bearssl_t *)self;
  size_t there = 0u;
  const uint8_t *bytes;
  int32_t result = 0;
  pump(tls);
  bytes = br_ssl_engine_recvapp_buf(&tls->client.eng, &there);
  if (bytes != NULL) {
    const size_t count = (there < size) ? there : size;
    (void)memcpy(out, bytes, count);
    br_ssl_engine_recvapp_ack(&tls->client.eng, count);
    result = (int32_t)count;
  } else if (ended(tls)) {
    result = -1;
  } else {
    /* nothing yet */
  }
  return result;
}

static int32_t tls_write(void *self, const uint8_t *bytes, uint32_t size) {
  fm_bearssl_t *tls = (fm_bearssl_t *)self;
  size_t room = 0u;
  uint8_t *into;
  int32_t result = 0;
  pump(tls);
  into = br_ssl_engine_sendapp_buf(&tls->client.eng, &room);
  if (ended(tls)) {
    result = -1;
  } else if ((into != NULL) && (size > 0u)) {
    const size_t count = (room < size) ? room : size;
    (void)memcpy(into, bytes, count);
    br_ssl_engine_sendapp_ack(&tls->client.eng, count);
    br_ssl_engine_flush(&tls->client.eng, 0);
    pump(tls);
    result = (int32_t)count;
  } else {
    /* the record before is still being sent */
  }
  return result;
}

/* ---- the profile ---- */

static void choose_hashes(fm_bearssl_t *tls) {
  static const struct {
    int id;
    const br_hash_class *hash;
  } hashes[] = {
      {br_sha256_ID, &br_sha256_vtable}, {br_sha384_ID, &br_sha384_vtable}, {br_sha512_ID, &br_sha512_vtable}};
  for (uint32_t i = 0u; i < (sizeof hashes / sizeof hashes[0]); i++) {
    br_ssl_engine_set_hash(&tls->client.eng, hashes[i].id, hashes[i].hash);
    br_x509_minimal_set_hash(&tls->x509, hashes[i].id, hashes[i].hash);
  }
}

static void choose_ciphers(br_ssl_engine_context *engine) {
  static const uint16_t suites[] = {
      BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
      BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256};
  br_ssl_engine_set_versions(engine, BR_TLS12, BR_TLS12);
  br_ssl_engine_set_all_flags(engine, BR_OPT_NO_RENEGOTIATION);
  br_ssl_engine_set_suites(engine, suites, sizeof suites / sizeof suites[0]);
  br_ssl_engine_set_prf_sha256(engine, &br_tls12_sha256_prf);
  br_ssl_engine_set_chacha20(engine, &br_chacha20_ct_run);
  br_ssl_engine_set_poly1305(engine, &br_poly1305_ctmul32_run);
  br_ssl_engine_set_chapol(engine, &br_sslrec_in_chapol_vtable, &br_sslrec_out_chapol_vtable);
  br_ssl_engine_set_aes_ctr(engine, &br_aes_ct_ctr_vtable);
  br_ssl_engine_set_ghash(engine, &br_ghash_ctmul32);
  br_ssl_engine_set_gcm(engine, &br_sslrec_in_gcm_vtable, &br_sslrec_out_gcm_vtable);
}

static void choose_keys(fm_bearssl_t *tls) {
  br_ssl_engine_context *engine = &tls->client.eng;
  br_ssl_engine_set_ec(engine, &br_ec_all_m15);
  br_ssl_engine_set_ecdsa(engine, &br_ecdsa_i15_vrfy_asn1);
  br_ssl_engine_set_rsavrfy(engine, &br_rsa_i15_pkcs1_vrfy);
  br_x509_minimal_set_ecdsa(&tls->x509, &br_ec_all_m15, &br_ecdsa_i15_vrfy_asn1);
  br_x509_minimal_set_rsa(&tls->x509, &br_rsa_i15_pkcs1_vrfy);
  br_ssl_engine_set_x509(engine, &tls->x509.vtable);
}

static bool complete(const fm_bearssl_config_t *config) {
  const bool calls = (config->random != NULL) && (config->unix_time != NULL);
  const bool host = (config->host != NULL) && (config->host[0] != '\0') && (strlen(config->host) <= LONGEST_HOST);
  return calls && host && (config->below.api != NULL) && (config->anchors != NULL) && (config->anchor_count > 0u) &&
         (config->buffer != NULL);
}

fm_status_t fm_bearssl_init(fm_bearssl_t *tls, const fm_bearssl_config_t *config, fm_stream_t *stream) {
  static const fm_stream_api_t api = {tls_open, tls_read, tls_write, tls_close};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((tls != NULL) && (config != NULL) && (stream != NULL) && complete(config)) {
    status = (config->buffer_size >= FM_BEARSSL_BUFFER_LEAST) ? FM_OK : FM_ERR_BUFFER;
  }
  if (status == FM_OK) {
    (void)memset(tls, 0, sizeof *tls);
    tls->config = config;
    br_ssl_client_zero(&tls->client);
    br_x509_minimal_init(&tls->x509, &br_sha256_vtable, config->anchors, config->anchor_count);
    choose_ciphers(&tls->client.eng);
    choose_keys(tls);
    choose_hashes(tls);
    stream->api = &api;
    stream->self = tls;
  }
  return status;
}
