/* SPDX-License-Identifier: Apache-2.0 */
/* Over 350 lines: the cases share one broker stand-in that speaks MQTT byte by byte. */
/* The MQTT link against a scripted stream: what it writes is compared with the specification byte for byte, and what it
 * reads comes in every cut, late, wrong, or not at all. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_mqtt.h"

#define FOREVER 0xFFFFFFFFu
#define WIRE_SIZE 300000u

/* The stream: `in` is what the broker says, `out` what the device said. */
typedef struct {
  uint8_t in[WIRE_SIZE];
  uint32_t in_size;
  uint32_t in_at;
  uint8_t out[WIRE_SIZE];
  uint32_t out_size;
  uint32_t read_step;  /* most bytes a read gives */
  uint32_t write_step; /* most bytes a write takes */
  uint32_t room;       /* bytes that it takes before it is full */
  fm_status_t open;
  bool read_breaks; /* when all was read */
  bool write_breaks;
  uint32_t opens;
  uint32_t closes;
} wire_t;

/* The sink: what came whole, end to end, and how much of it was cut off. */
typedef struct {
  uint8_t data[WIRE_SIZE];
  uint32_t size;
  uint32_t begins;
  uint32_t complete;
  uint32_t cut;
  uint32_t total; /* of the message begun last */
  uint32_t got;   /* of it */
  bool inside;
} inbox_t;

static wire_t wire;
static inbox_t inbox;
static fm_mqtt_t mqtt;
static fm_mqtt_config_t config;
static fm_link_t link_;
static uint8_t buffer[4096];
static uint32_t now;
static uint32_t wait_ms;

static fm_status_t wire_open(void *self) {
  (void)self;
  wire.opens++;
  return wire.open;
}

static uint32_t least(uint32_t a, uint32_t b) { return (a < b) ? a : b; }

static int32_t wire_read(void *self, uint8_t *out, uint32_t size) {
  const uint32_t n = least(least(size, wire.read_step), wire.in_size - wire.in_at);
  (void)self;
  if (n == 0u) {
    return wire.read_breaks ? -1 : 0;
  }
  (void)memcpy(out, &wire.in[wire.in_at], n);
  wire.in_at += n;
  return (int32_t)n;
}

static int32_t wire_write(void *self, const uint8_t *bytes, uint32_t size) {
  const uint32_t n = least(least(size, wire.write_step), least(wire.room, WIRE_SIZE - wire.out_size));
  (void)self;
  if (wire.write_breaks) {
    return -1;
  }
  (void)memcpy(&wire.out[wire.out_size], bytes, n);
  wire.out_size += n;
  wire.room -= n;
  return (int32_t)n;
}

static void wire_close(void *self) {
  (void)self;
  wire.closes++;
  wire.in_size = 0u;
  wire.in_at = 0u;
  wire.read_breaks = false;
  wire.write_breaks = false;
}

static void inbox_begin(void *user, uint32_t total) {
  (void)user;
  CHECK(!inbox.inside);
  inbox.inside = true;
  inbox.begins++;
  inbox.total = total;
  inbox.got = 0u;
}

static void inbox_data(void *user, const uint8_t *bytes, uint32_t size) {
  (void)user;
  CHECK(inbox.inside && (size != 0u) && (size <= (inbox.total - inbox.got)));
  if (size <= (WIRE_SIZE - inbox.size)) {
    (void)memcpy(&inbox.data[inbox.size], bytes, size);
    inbox.size += size;
  }
  inbox.got += size;
}

static void inbox_end(void *user, bool complete) {
  (void)user;
  CHECK(inbox.inside && (!complete || (inbox.got == inbox.total)));
  inbox.inside = false;
  inbox.complete += complete ? 1u : 0u;
  inbox.cut += complete ? 0u : 1u;
}

static const fm_sink_t sink = {NULL, inbox_begin, inbox_data, inbox_end};

static fm_status_t poll_once(void) {
  wait_ms = FOREVER;
  return link_.api->poll(link_.self, now, &sink, &wait_ms);
}

/* Poll until the link has nothing more to do at this time. */
static fm_status_t settle(void) {
  fm_status_t status = poll_once();
  for (uint32_t i = 0u; (i < 400000u) && (wait_ms == 0u); i++) {
    status = poll_once();
  }
  return status;
}

static void feed(const void *bytes, uint32_t size) {
  CHECK(size <= (WIRE_SIZE - wire.in_size));
  (void)memcpy(&wire.in[wire.in_size], bytes, size);
  wire.in_size += size;
}

#define FEED(...)                                                                                                      \
  do {                                                                                                                 \
    static const uint8_t bytes_[] = {__VA_ARGS__};                                                                     \
    feed(bytes_, sizeof bytes_);                                                                                       \
  } while (0)

/* All that was written since the last look is this. */
static bool said(const void *bytes, uint32_t size) {
  const bool same = (wire.out_size == size) && (memcmp(wire.out, bytes, size) == 0);
  if (!same) {
    for (uint32_t i = 0u; i < least(wire.out_size, 200u); i++) {
      (void)printf("%02x ", wire.out[i]);
    }
    (void)printf("(%u)\n", (unsigned)wire.out_size);
  }
  wire.out_size = 0u;
  return same;
}

/* String literals, so that topics can be read; the last NUL does not count. */
#define SAID(literal) CHECK(said(literal, (uint32_t)sizeof(literal) - 1u))

static void setup(void) {
  static const fm_stream_api_t api = {wire_open, wire_read, wire_write, wire_close};
  (void)memset(&wire, 0, sizeof wire);
  (void)memset(&inbox, 0, sizeof inbox);
  (void)memset(&config, 0, sizeof config);
  (void)memset(buffer, 0xA5, sizeof buffer);
  wire.read_step = FOREVER;
  wire.write_step = FOREVER;
  wire.room = FOREVER;
  wire.open = FM_OK;
  now = 1000u;
  config.stream.api = &api;
  config.stream.self = &wire;
  config.federation = "f";
  config.device_id = "d";
  config.keep_alive_s = 60u;
  config.seed = 7u;
  config.buffer = buffer;
  config.buffer_size = 256u;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_OK);
}

static uint32_t connection(void) { return link_.api->connection(link_.self); }

static bool sending(void) { return link_.api->sending(link_.self); }

/* From closed to up; forgets what was said. */
static void connect_with(uint8_t session_present) {
  uint8_t connack[] = {0x20u, 0x02u, session_present, 0x00u};
  uint8_t suback[] = {0x90u, 0x04u, 0x00u, 0x00u, 0x01u, 0x01u};
  now += mqtt.wait_ms;
  CHECK(settle() == FM_OK || mqtt.refused);
  feed(connack, sizeof connack);
  (void)settle();
  suback[2] = (uint8_t)(mqtt.subscribe_id >> 8);
  suback[3] = (uint8_t)mqtt.subscribe_id;
  feed(suback, sizeof suback);
  CHECK(settle() == FM_OK);
  CHECK(connection() != 0u);
  wire.out_size = 0u;
}

static void setup_up(void) {
  setup();
  connect_with(0u);
}

/* A body whose byte at i is i * 7 + i / 251. */
static uint8_t pattern(uint32_t i) { return (uint8_t)((i * 7u) + (i / 251u)); }

static uint32_t reads_until_error;

static fm_status_t read_pattern(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  (void)user;
  if (reads_until_error != 0u) {
    reads_until_error--;
    if (reads_until_error == 0u) {
      return FM_ERR_STORAGE;
    }
  }
  for (uint32_t i = 0u; i < size; i++) {
    out[i] = pattern(offset + i);
  }
  return FM_OK;
}

static fm_status_t send(const char *head, uint32_t body_size, fm_delivery_t delivery) {
  fm_outgoing_t message;
  (void)memset(&message, 0, sizeof message);
  message.head = (const uint8_t *)head;
  message.head_size = (uint32_t)strlen(head);
  message.body_size = body_size;
  message.read = read_pattern;
  return link_.api->send(link_.self, &message, delivery);
}

static fm_status_t fetch(uint32_t version, uint32_t index) { return link_.api->fetch(link_.self, version, index); }

/* ---- setting up ---- */

static void test_init(void) {
  static const char *const bad[] = {"", ".", "..", "a/b", "a b", "a+", "\xC3\xA4", "123456789012345678901234567890123"};
  setup();
  CHECK(fm_mqtt_init(NULL, &config, &link_) == FM_ERR_ARGUMENT);
  CHECK(fm_mqtt_init(&mqtt, NULL, &link_) == FM_ERR_ARGUMENT);
  CHECK(fm_mqtt_init(&mqtt, &config, NULL) == FM_ERR_ARGUMENT);
  for (uint32_t i = 0u; i < (sizeof bad / sizeof bad[0]); i++) {
    config.federation = bad[i];
    CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  }
  config.federation = NULL;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  config.federation = "AZaz09_-.";
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_OK);
  config.device_id = "0123456789012345678901234567890123456789012345678901234567890123";
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  config.device_id = &config.device_id[1];
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_OK);
  config.password = "without a name";
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  config.password = NULL;
  config.keep_alive_s = 0u;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  config.keep_alive_s = 1u;
  config.buffer_size = FM_MQTT_MIN_BUFFER - 1u;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_BUFFER);
  config.buffer_size = FM_MQTT_MIN_BUFFER;
  config.seed = 0u;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_OK);
  config.buffer = NULL;
  CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
  config.buffer = buffer;
  for (uint32_t i = 0u; i < 5u; i++) {
    fm_stream_api_t api = *config.stream.api;
    const fm_stream_api_t *const whole = config.stream.api;
    api.open = (i == 0u) ? NULL : api.open;
    api.read = (i == 1u) ? NULL : api.read;
    api.write = (i == 2u) ? NULL : api.write;
    api.close = (i == 3u) ? NULL : api.close;
    config.stream.api = (i == 4u) ? NULL : &api;
    CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_ERR_ARGUMENT);
    config.stream.api = whole;
  }
}

/* ---- what is written ---- */

static void test_handshake_bytes(void) {
  setup();
  CHECK(connection() == 0u);
  CHECK(settle() == FM_OK);
  SAID("\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03"
       "f.d");
  CHECK(wait_ms == 10000u);
  FEED(0x20, 0x02, 0x00, 0x00);
  CHECK(settle() == FM_OK);
  SAID("\x82\x1d\x00\x01\x00\x0b"
       "fm/1/f/dn/d\x01\x00\x0a"
       "fm/1/f/all\x01");
  CHECK((connection() == 0u) && (mqtt.counters.connections == 1u) && !mqtt.counters.session_present);
  FEED(0x90, 0x04, 0x00, 0x01, 0x01, 0x00); /* the second at QoS 0: the broker may */
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(connection() == 1u);
  CHECK(wait_ms == 45000u);
}

static void test_connect_with_everything(void) {
  setup();
  config.federation = "plant";
  config.device_id = "dev-1";
  config.username = "u";
  config.password = "secret";
  config.will = (const uint8_t *)"\x01\x00\x02";
  config.will_size = 3u;
  config.keep_alive_s = 0x1234u;
  for (uint32_t step = 1u; step < 80u; step += 3u) {
    CHECK(fm_mqtt_init(&mqtt, &config, &link_) == FM_OK);
    config.buffer_size = (step < 40u) ? FM_MQTT_MIN_BUFFER : 1000u;
    wire.write_step = step;
    CHECK(settle() == FM_OK);
    /* user name, password, will at QoS 1 not retained, no clean session */
    SAID("\x10\x40\x00\x04MQTT\x04\xcc\x12\x34\x00\x0b"
         "plant.dev-1\x00\x17"
         "fm/1/plant/up/150/dev-1"
         "\x00\x03\x01\x00\x02"
         "\x00\x01u\x00\x06secret");
  }
  setup();
  config.username = "u";
  CHECK(settle() == FM_OK);
  SAID("\x10\x12\x00\x04MQTT\x04\x80\x00\x3c\x00\x03"
       "f.d\x00\x01u");
}

static void test_publish_bytes(void) {
  setup_up();
  CHECK(send("Hi!", 0u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(sending());
  CHECK(send("no", 0u, FM_AT_MOST_ONCE) == FM_AGAIN);
  CHECK(settle() == FM_OK);
  CHECK(!sending());
  SAID("\x30\x14\x00\x0f"
       "fm/1/f/up/204/dHi!");
  CHECK(send("head", 2u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  CHECK(sending());
  SAID("\x32\x19\x00\x0f"
       "fm/1/f/up/204/d\x00\x02"
       "head\x00\x07");
  FEED(0x40, 0x02, 0x00, 0x03); /* another's */
  CHECK(settle() == FM_OK);
  CHECK(sending());
  FEED(0x40, 0x02, 0x00, 0x02);
  CHECK(settle() == FM_OK);
  CHECK(!sending());
  FEED(0x40, 0x02, 0x00, 0x02); /* doubled */
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(mqtt.counters.malformed == 0u);
}

/* The remaining length has one to four bytes (table 2.4); a body far larger than the buffer is streamed. */
static void test_publish_sizes(void) {
  static const struct {
    uint32_t body;
    uint32_t length_size;
    uint8_t length[4];
  } cases[] = {
      {0u, 1u, {17u}},
      {110u, 1u, {0x7Fu}},
      {111u, 2u, {0x80u, 0x01u}},
      {16366u, 2u, {0xFFu, 0x7Fu}},
      {16367u, 3u, {0x80u, 0x80u, 0x01u}},
      {250000u, 3u, {0xA1u, 0xA1u, 0x0Fu}},
  };
  static const uint32_t steps[] = {FOREVER, 1u, 63u};
  for (uint32_t c = 0u; c < (3u * (sizeof cases / sizeof cases[0])); c++) {
    const uint32_t body = cases[c / 3u].body;
    const uint32_t at = 1u + cases[c / 3u].length_size;
    bool same = true;
    setup();
    config.buffer_size = ((c % 2u) == 0u) ? FM_MQTT_MIN_BUFFER : 256u;
    connect_with(1u);
    wire.write_step = steps[c % 3u];
    CHECK(send("", body, FM_AT_MOST_ONCE) == FM_OK);
    CHECK(settle() == FM_OK);
    CHECK(!sending());
    CHECK(wire.out[0] == 0x30u);
    CHECK(memcmp(&wire.out[1], cases[c / 3u].length, cases[c / 3u].length_size) == 0);
    CHECK(memcmp(&wire.out[at],
                 "\x00\x0f"
                 "fm/1/f/up/204/d",
                 17u) == 0);
    CHECK(wire.out_size == (at + 17u + body));
    for (uint32_t i = 0u; i < body; i++) {
      same = same && (wire.out[at + 17u + i] == pattern(i));
    }
    CHECK(same);
  }
  CHECK(send("", 0x0FF00000u, FM_AT_MOST_ONCE) == FM_OK); /* four bytes of length */
  wire.out_size = 0u;
  wire.room = 20u;
  CHECK(poll_once() == FM_OK);
  CHECK(memcmp(wire.out, "\x30\x91\x80\xc0\x7f\x00\x0f", 7u) == 0);
}

static void test_send_refuses(void) {
  fm_outgoing_t message;
  (void)memset(&message, 0, sizeof message);
  setup();
  CHECK(send("early", 0u, FM_AT_MOST_ONCE) == FM_AGAIN);
  CHECK(fetch(1u, 1u) == FM_AGAIN);
  setup_up();
  message.body_size = 0x0FF00001u;
  CHECK(link_.api->send(link_.self, &message, FM_AT_MOST_ONCE) == FM_ERR_BUFFER);
  message.body_size = 0u;
  message.head_size = 0x10000u;
  CHECK(link_.api->send(link_.self, &message, FM_AT_MOST_ONCE) == FM_ERR_BUFFER);
  CHECK(!sending());
}

static void test_resend(void) {
  setup_up();
  CHECK(send("once", 0u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  SAID("\x32\x17\x00\x0f"
       "fm/1/f/up/204/d\x00\x02once");
  for (uint32_t i = 1u; i < 4u; i++) {
    const uint32_t former = connection();
    wire.read_breaks = true;
    CHECK(settle() == FM_OK);
    CHECK((connection() == 0u) && sending());
    CHECK((wait_ms >= 250u) && (wait_ms <= 500u));
    connect_with((uint8_t)(i % 2u)); /* with the session or without */
    CHECK(connection() == (former + 1u));
    CHECK(mqtt.counters.session_present == ((i % 2u) == 1u));
    CHECK(mqtt.counters.resent == i);
    now += wait_ms;
  }
  FEED(0x40, 0x02, 0x00, 0x02);
  CHECK(settle() == FM_OK);
  CHECK(!sending());
  CHECK(mqtt.counters.failures == 3u);
}

static void test_resend_bytes(void) {
  setup_up();
  wire.room = 10u; /* half the packet */
  CHECK(send("head", 2u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  wire.write_breaks = true;
  CHECK(settle() == FM_OK);
  wire.out_size = 0u;
  wire.room = FOREVER;
  now += wait_ms;
  CHECK(settle() == FM_OK);
  SAID("\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03"
       "f.d");
  FEED(0x20, 0x02, 0x01, 0x00);
  FEED(0x90, 0x04, 0x00, 0x03, 0x01, 0x01); /* the identifiers go on: 2 is the publish's */
  CHECK(settle() == FM_OK);
  CHECK(connection() == 0u); /* this SUBACK came before its SUBSCRIBE: not the broker's answer to it */
  SAID("\x82\x1d\x00\x03\x00\x0b"
       "fm/1/f/dn/d\x01\x00\x0a"
       "fm/1/f/all\x01");
  FEED(0x90, 0x04, 0x00, 0x03, 0x01, 0x01);
  CHECK(settle() == FM_OK);
  SAID("\x3a\x19\x00\x0f"
       "fm/1/f/up/204/d\x00\x02"
       "head\x00\x07");
}

static void test_at_most_once_is_given_up(void) {
  setup_up();
  wire.room = 10u;
  CHECK(send("gone", 500u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  CHECK(sending() && (wait_ms == 10u));
  wire.read_breaks = true;
  CHECK(settle() == FM_OK);
  CHECK(!sending());
  wire.room = FOREVER;
  connect_with(1u);
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(send("anew", 0u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  SAID("\x30\x15\x00\x0f"
       "fm/1/f/up/204/danew");
}

static void test_abort(void) {
  setup_up();
  link_.api->abort(link_.self); /* nothing under way */
  CHECK(!sending() && (connection() != 0u));
  CHECK(send("a", 0u, FM_AT_LEAST_ONCE) == FM_OK);
  link_.api->abort(link_.self); /* nothing written */
  CHECK(!sending());
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(send("b", 0u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  link_.api->abort(link_.self); /* waiting for PUBACK */
  CHECK(!sending() && (connection() != 0u));
  wire.out_size = 0u;
  wire.room = 0u;
  CHECK(send("c", 500u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  link_.api->abort(link_.self); /* in the buffer, but none of it on the stream */
  CHECK(!sending() && (connection() != 0u));
  wire.room = FOREVER;
  CHECK(settle() == FM_OK);
  SAID("");
  wire.room = 1u;
  CHECK(send("d", 500u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  link_.api->abort(link_.self); /* in part: costs the connection, and no time */
  CHECK(!sending() && (connection() == 0u) && (wire.closes == 1u));
  wire.out_size = 0u;
  wire.room = FOREVER;
  CHECK(settle() == FM_OK);
  SAID("\x10\x0f\x00\x04MQTT\x04\x00\x00\x3c\x00\x03"
       "f.d");
  CHECK(mqtt.counters.failures == 0u);
}

/* Behind another packet of which a part has left, the buffer must not be lost with the message. */
static void test_abort_behind_another_packet(void) {
  for (uint32_t room = 0u; room < 30u; room++) {
    setup_up();
    wire.room = room;
    CHECK(fetch(1u, 0u) == FM_OK);
    CHECK(send("x", 400u, FM_AT_MOST_ONCE) == FM_OK);
    CHECK(settle() == FM_OK);
    link_.api->abort(link_.self);
    CHECK(!sending());
    wire.room = FOREVER;
    CHECK(settle() == FM_OK);
    if (room <= 23u) { /* the SUBSCRIBE's size */
      CHECK(connection() != 0u);
      SAID("\x82\x15\x00\x02\x00\x10"
           "fm/1/f/model/1/0\x00");
      CHECK(send("y", 0u, FM_AT_MOST_ONCE) == FM_OK);
      CHECK(settle() == FM_OK);
      SAID("\x30\x12\x00\x0f"
           "fm/1/f/up/204/dy");
    } else {
      CHECK(connection() == 0u);
    }
  }
}

static void test_unreadable_body(void) {
  setup_up();
  reads_until_error = 1u;
  CHECK(send("x", 400u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  CHECK(!sending() && (connection() != 0u)); /* nothing had left */
  SAID("");
  reads_until_error = 3u;
  CHECK(send("x", 400u, FM_AT_LEAST_ONCE) == FM_OK);
  (void)poll_once();
  CHECK(!sending() && (connection() == 0u));
  reads_until_error = 0u;
}

/* ---- model chunks ---- */

static void test_fetch(void) {
  setup_up();
  CHECK(fetch(7u, 12u) == FM_OK);
  CHECK(settle() == FM_OK);
  SAID("\x82\x16\x00\x02\x00\x11"
       "fm/1/f/model/7/12\x00");
  FEED(0x90, 0x03, 0x00, 0x02, 0x00);
  CHECK(settle() == FM_OK);
  SAID("");
  feed("\x31\x16\x00\x11"
       "fm/1/f/model/7/12abc",
       24u);
  CHECK(settle() == FM_OK);
  CHECK((inbox.complete == 1u) && (inbox.size == 3u) && (memcmp(inbox.data, "abc", 3u) == 0));
  SAID("\xa2\x15\x00\x03\x00\x11"
       "fm/1/f/model/7/12");
  /* the next one is not kept waiting for the UNSUBACK */
  CHECK(fetch(7u, 4294967295u) == FM_OK);
  CHECK(settle() == FM_OK);
  SAID("\x82\x1e\x00\x04\x00\x19"
       "fm/1/f/model/7/4294967295\x00");
  /* but its own UNSUBSCRIBE is: two topics are remembered, not three */
  feed("\x31\x1c\x00\x19"
       "fm/1/f/model/7/4294967295d",
       30u);
  CHECK(settle() == FM_OK);
  SAID("");
  FEED(0xB0, 0x02, 0x00, 0x09); /* another's */
  CHECK(settle() == FM_OK);
  SAID("");
  FEED(0xB0, 0x02, 0x00, 0x03);
  CHECK(settle() == FM_OK);
  SAID("\xa2\x1d\x00\x05\x00\x19"
       "fm/1/f/model/7/4294967295");
  FEED(0xB0, 0x02, 0x00, 0x05);
  CHECK(settle() == FM_OK);
  wire.read_breaks = true;
  CHECK(settle() == FM_OK);
  connect_with(1u);
  CHECK(settle() == FM_OK);
  SAID(""); /* nothing is left over */
}

static void test_fetch_replaced(void) {
  setup_up();
  CHECK(fetch(7u, 1u) == FM_OK);
  CHECK(fetch(7u, 2u) == FM_OK); /* before anything was written */
  CHECK(settle() == FM_OK);
  SAID("\x82\x15\x00\x02\x00\x10"
       "fm/1/f/model/7/2\x00");
  CHECK(fetch(8u, 0u) == FM_OK);
  CHECK(settle() == FM_OK);
  SAID("\xa2\x14\x00\x03\x00\x10"
       "fm/1/f/model/7/2"
       "\x82\x15\x00\x04\x00\x10"
       "fm/1/f/model/8/0\x00");
  feed("\x31\x13\x00\x10"
       "fm/1/f/model/7/2x",
       21u); /* the former one comes late: passed on, and not taken for it */
  CHECK(settle() == FM_OK);
  CHECK(inbox.complete == 1u);
  FEED(0xB0, 0x02, 0x00, 0x03);
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(fetch(8u, 0u) == FM_OK); /* the same once more: the broker sends it again */
  CHECK(settle() == FM_OK);
  SAID("\xa2\x14\x00\x05\x00\x10"
       "fm/1/f/model/8/0"
       "\x82\x15\x00\x06\x00\x10"
       "fm/1/f/model/8/0\x00");
}

/* A SUBSCRIBE that is half written is not changed by the next fetch. */
static void test_fetch_while_writing(void) {
  for (uint32_t room = 0u; room < 24u; room++) {
    setup_up();
    wire.room = room;
    CHECK(fetch(7u, 123456789u) == FM_OK);
    CHECK(settle() == FM_OK);
    CHECK(fetch(99u, 1u) == FM_OK);
    CHECK(send("", 0u, FM_AT_LEAST_ONCE) == FM_OK);
    CHECK(settle() == FM_OK);
    wire.room = FOREVER;
    CHECK(settle() == FM_OK);
    CHECK(wire.out_size > 33u);
    wire.out_size = 31u;
    SAID("\x82\x1d\x00\x02\x00\x18"
         "fm/1/f/model/7/123456789\x00");
  }
}

/* Whether it was heard before the break or not, no chunk stays subscribed in the broker's session. */
static void test_leftover_subscriptions(void) {
  setup_up();
  CHECK(fetch(7u, 1u) == FM_OK);
  CHECK(settle() == FM_OK);
  CHECK(fetch(7u, 2u) == FM_OK);
  CHECK(settle() == FM_OK);
  wire.read_breaks = true;
  CHECK(settle() == FM_OK);
  wire.out_size = 0u;
  now += wait_ms;
  CHECK(settle() == FM_OK);
  wire.out_size = 0u;
  FEED(0x20, 0x02, 0x01, 0x00);
  CHECK(settle() == FM_OK);
  SAID("\x82\x1d\x00\x05\x00\x0b"
       "fm/1/f/dn/d\x01\x00\x0a"
       "fm/1/f/all\x01"
       "\xa2\x14\x00\x06\x00\x10"
       "fm/1/f/model/7/1");
  FEED(0x90, 0x04, 0x00, 0x05, 0x01, 0x01, 0xB0, 0x02, 0x00, 0x06);
  CHECK(settle() == FM_OK);
  SAID("\xa2\x14\x00\x07\x00\x10"
       "fm/1/f/model/7/2");
  FEED(0xB0, 0x02, 0x00, 0x07);
  CHECK(settle() == FM_OK);
  SAID("");
}

/* ---- what is read ---- */

/* A recorded conversation of a broker, in which each answer fits what the device says by then. */
static uint32_t conversation(uint8_t *out, uint32_t payload) {
  uint32_t n = 0u;
  uint32_t remaining = 2u + 11u + 2u + payload;
  out[n++] = 0x32u;
  do {
    out[n++] = (uint8_t)((remaining & 0x7Fu) | ((remaining > 127u) ? 0x80u : 0u));
    remaining >>= 7;
  } while (remaining != 0u);
  (void)memcpy(&out[n],
               "\x00\x0b"
               "fm/1/f/dn/d\x12\x34",
               15u);
  n += 15u;
  for (uint32_t i = 0u; i < payload; i++) {
    out[n++] = pattern(i);
  }
  return n;
}

static void test_incoming_sizes(void) {
  static const uint32_t sizes[] = {0u, 1u, 112u, 113u, 127u, 128u, 16000u, 16384u, 100000u};
  static const uint32_t steps[] = {FOREVER, 1u, 7u};
  static uint8_t bytes[100100];
  for (uint32_t c = 0u; c < 27u; c++) {
    const uint32_t size = sizes[c / 3u];
    const uint32_t n = conversation(bytes, size);
    bool same = true;
    setup();
    config.buffer_size = ((c % 2u) == 0u) ? FM_MQTT_MIN_BUFFER : 1000u;
    connect_with(1u);
    wire.read_step = steps[c % 3u];
    feed(bytes, n);
    CHECK(settle() == FM_OK);
    CHECK((inbox.complete == 1u) && (inbox.cut == 0u) && (inbox.total == size) && (inbox.size == size));
    for (uint32_t i = 0u; i < size; i++) {
      same = same && (inbox.data[i] == pattern(i));
    }
    CHECK(same);
    SAID("\x40\x02\x12\x34");
    CHECK(mqtt.counters.malformed == 0u);
  }
}

/* Messages of the session may come before the SUBACK; at QoS 0, and doubled, they are passed on too. */
static void test_incoming_kinds(void) {
  setup();
  CHECK(settle() == FM_OK);
  wire.out_size = 0u;
  FEED(0x20, 0x02, 0x01, 0x00);
  feed("\x32\x06\x00\x01"
       "a\x00\x01x",
       8u);
  feed("\x3a\x06\x00\x01"
       "a\x00\x01x",
       8u); /* DUP */
  feed("\x30\x04\x00\x01"
       "b"
       "y",
       6u);
  feed("\x33\x06\x00\x01"
       "c\x00\x02z",
       8u); /* retained, at QoS 1 */
  feed("\x32\x05\x00\x01"
       "a\x00\x03",
       7u); /* empty */
  CHECK(settle() == FM_OK);
  CHECK(connection() == 0u);
  CHECK((inbox.complete == 5u) && (inbox.size == 4u) && (memcmp(inbox.data, "xxyz", 4u) == 0));
  CHECK(said("\x40\x02\x00\x01\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03"
             "\x82\x1d\x00\x01\x00\x0b"
             "fm/1/f/dn/d\x01\x00\x0a"
             "fm/1/f/all\x01",
             16u + 31u));
  CHECK(mqtt.counters.packets_in == 6u);
}

static void test_backpressure(void) {
  setup_up();
  wire.room = 0u;
  for (uint32_t i = 1u; i <= 30u; i++) {
    uint8_t publish[] = {0x32u, 0x05u, 0x00u, 0x01u, (uint8_t)'a', 0x00u, (uint8_t)i}; /* the shortest there is */
    feed(publish, sizeof publish);
  }
  CHECK(settle() == FM_OK);
  /* what lies in the transmit buffer is settled; behind it the queue fills, then nothing is read */
  CHECK(inbox.complete < 30u + 1u);
  CHECK(mqtt.ack_count <= FM_MQTT_PENDING_ACKS);
  setup();
  config.buffer_size = FM_MQTT_MIN_BUFFER;
  connect_with(1u);
  wire.room = 0u;
  for (uint32_t i = 1u; i <= 200u; i++) {
    uint8_t publish[] = {0x32u, 0x05u, 0x00u, 0x01u, (uint8_t)'a', 0x00u, (uint8_t)i};
    feed(publish, sizeof publish);
  }
  CHECK(settle() == FM_OK);
  CHECK(inbox.complete == (8u + FM_MQTT_PENDING_ACKS)); /* 8 PUBACKs fill the half buffer of 32 */
  CHECK(wire.in_at <= (32u + (7u * (8u + FM_MQTT_PENDING_ACKS))));
  CHECK(wait_ms == 10u);
  wire.room = FOREVER;
  CHECK(settle() == FM_OK);
  CHECK(inbox.complete == 200u);
  CHECK(wire.out_size == 800u);
  for (uint32_t i = 0u; i < 200u; i++) {
    const uint8_t puback[] = {0x40u, 0x02u, 0x00u, (uint8_t)(i + 1u)};
    CHECK(memcmp(&wire.out[4u * i], puback, 4u) == 0);
  }
}

static void test_break_within_a_message(void) {
  setup_up();
  feed("\x30\x0a\x00\x01"
       "abc",
       7u);
  CHECK(settle() == FM_OK);
  CHECK(inbox.inside);
  wire.read_breaks = true;
  CHECK(settle() == FM_OK);
  CHECK(!inbox.inside && (inbox.cut == 1u));
  connect_with(1u);
  feed("\x30\x0a\x00\x01"
       "abc",
       7u);
  wire.room = 1u;
  CHECK(send("x", 400u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  link_.api->abort(link_.self); /* breaks outside poll; the sink learns of it in the next */
  CHECK(inbox.inside);
  wire.room = FOREVER;
  CHECK(settle() == FM_OK);
  CHECK(!inbox.inside && (inbox.cut == 2u) && (inbox.complete == 0u));
}

static void test_malformed(void) {
  static const struct {
    uint32_t size;
    const char *bytes;
  } cases[] = {
      {2u, "\x00\x00"},                 /* reserved type 0 */
      {2u, "\xF0\x00"},                 /* reserved type 15 */
      {2u, "\x10\x00"},                 /* CONNECT, and others that only a client says */
      {2u, "\x82\x05"},                 /* SUBSCRIBE */
      {2u, "\xA2\x05"},                 /* UNSUBSCRIBE */
      {2u, "\xC0\x00"},                 /* PINGREQ */
      {2u, "\xE0\x00"},                 /* DISCONNECT */
      {2u, "\x50\x02"},                 /* PUBREC: never asked for */
      {2u, "\x62\x02"},                 /* PUBREL */
      {2u, "\x70\x02"},                 /* PUBCOMP */
      {2u, "\x34\x09"},                 /* PUBLISH at QoS 2: never granted */
      {2u, "\x36\x09"},                 /* QoS 3 */
      {2u, "\x38\x09"},                 /* DUP at QoS 0 */
      {2u, "\x30\x02"},                 /* no room for a topic */
      {2u, "\x30\x00"},                 /* nothing at all */
      {4u, "\x30\x05\x00\x00"},         /* empty topic */
      {6u, "\x32\x05\x00\x00\x00\x01"}, /* empty topic at QoS 1 */
      {4u, "\x30\x05\x00\x04"},         /* topic longer than the packet */
      {4u, "\x30\x05\xFF\xFF"},         /* much longer */
      {4u, "\x32\x06\x00\x03"},         /* no room for the identifier */
      {7u, "\x32\x05\x00\x01"
           "a\x00\x00"},         /* identifier 0 */
      {5u, "\x30\x05\x00\x01+"}, /* wildcards and NUL in a topic */
      {6u, "\x30\x05\x00\x02"
           "a#"},                   /* */
      {5u, "\x30\x05\x00\x01\x00"}, /* */
      {5u, "\x30\xFF\xFF\xFF\xFF"}, /* remaining length of five bytes */
      {5u, "\x30\x80\x80\x80\x80"}, /* */
      {4u, "\x20\x02\x00\x00"},     /* a second CONNACK */
      {2u, "\x40\x03"},             /* PUBACK: size */
      {2u, "\x41\x02"},             /* flags */
      {4u, "\x40\x02\x00\x00"},     /* identifier 0 */
      {2u, "\x90\x02"},             /* SUBACK: size */
      {2u, "\x90\x05"},             /* size */
      {2u, "\x92\x03"},             /* flags */
      {5u, "\x90\x03\x00\x00\x00"}, /* identifier 0 */
      {5u, "\x90\x03\x00\x09\x02"}, /* a QoS that was not asked for */
      {5u, "\x90\x03\x00\x09\x7F"}, /* reserved code */
      {2u, "\xB0\x03"},             /* UNSUBACK: size */
      {2u, "\xB2\x02"},             /* flags */
      {4u, "\xB0\x02\x00\x00"},     /* identifier 0 */
      {2u, "\xD0\x01"},             /* PINGRESP: size */
      {2u, "\xD1\x00"},             /* flags */
  };
  for (uint32_t i = 0u; i < (2u * (sizeof cases / sizeof cases[0])); i++) {
    setup_up();
    wire.read_step = ((i % 2u) == 0u) ? FOREVER : 1u;
    feed(cases[i / 2u].bytes, cases[i / 2u].size);
    CHECK(settle() == FM_OK);
    CHECK((mqtt.counters.malformed == 1u) && (mqtt.counters.failures == 1u));
    CHECK((connection() == 0u) && (wire.closes == 1u) && !inbox.inside);
    if (mqtt.counters.malformed != 1u) {
      (void)printf("case %u\n", (unsigned)(i / 2u));
    }
    connect_with(1u); /* and the next connection is as good as the first */
  }
}

static void test_malformed_handshake(void) {
  static const struct {
    uint32_t size;
    const char *bytes;
  } first[] = {
      {2u, "\xD0\x00"},         /* before CONNACK nothing else may come */
      {2u, "\x30\x05"},         /* */
      {2u, "\x90\x04"},         /* */
      {2u, "\x20\x01"},         /* CONNACK: size */
      {2u, "\x21\x02"},         /* flags */
      {4u, "\x20\x02\x02\x00"}, /* reserved acknowledge flag */
      {4u, "\x20\x02\x01\x05"}, /* a session, and refused */
      {4u, "\x20\x02\x00\x06"}, /* reserved return code */
  };
  for (uint32_t i = 0u; i < (sizeof first / sizeof first[0]); i++) {
    setup();
    CHECK(settle() == FM_OK);
    feed(first[i].bytes, first[i].size);
    CHECK(settle() == FM_OK);
    CHECK((mqtt.counters.malformed == 1u) && (wire.closes == 1u));
  }
  setup();
  CHECK(settle() == FM_OK);
  FEED(0x20, 0x02, 0x00, 0x00);
  CHECK(settle() == FM_OK);
  FEED(0x90, 0x03, 0x00, 0x01, 0x01); /* one code for two topics */
  CHECK(settle() == FM_OK);
  CHECK(mqtt.counters.malformed == 1u);
}

/* ---- refusals ---- */

static void test_refusals(void) {
  static const uint8_t codes[] = {1u, 2u, 4u, 5u};
  for (uint32_t i = 0u; i < sizeof codes; i++) {
    uint8_t connack[] = {0x20u, 0x02u, 0x00u, codes[i]};
    setup();
    CHECK(settle() == FM_OK);
    feed(connack, sizeof connack);
    CHECK(settle() == FM_ERR_REFUSED);
    CHECK((mqtt.counters.refused == 1u) && (mqtt.counters.last_return_code == codes[i]));
    CHECK((mqtt.counters.connections == 0u) && (connection() == 0u));
    CHECK((wait_ms >= 30000u) && (wait_ms <= 60000u)); /* slowly at once */
    now += wait_ms;
    CHECK(settle() == FM_ERR_REFUSED); /* trying, still of the same opinion */
    CHECK(wire.opens == 2u);
    FEED(0x20, 0x02, 0x00, 0x00);
    CHECK(settle() == FM_ERR_REFUSED);
    FEED(0x90, 0x04, 0x00, 0x01, 0x01, 0x01);
    CHECK(settle() == FM_OK);
    CHECK((connection() != 0u) && (mqtt.counters.last_return_code == 0u));
  }
  setup();
  CHECK(settle() == FM_OK);
  FEED(0x20, 0x02, 0x00, 0x03); /* unavailable: that passes */
  CHECK(settle() == FM_OK);
  CHECK((mqtt.counters.refused == 0u) && (mqtt.counters.last_return_code == 3u) && (wait_ms <= 500u));
}

static void test_subscription_refused(void) {
  for (uint32_t i = 0u; i < 2u; i++) {
    setup();
    CHECK(settle() == FM_OK);
    FEED(0x20, 0x02, 0x00, 0x00);
    CHECK(settle() == FM_OK);
    if (i == 0u) {
      FEED(0x90, 0x04, 0x00, 0x01, 0x80, 0x01);
    } else {
      FEED(0x90, 0x04, 0x00, 0x01, 0x01, 0x80);
    }
    CHECK(settle() == FM_ERR_REFUSED);
    CHECK((mqtt.counters.refused == 1u) && (connection() == 0u) && (wait_ms >= 30000u));
  }
  setup_up();
  CHECK(fetch(1u, 1u) == FM_OK);
  CHECK(settle() == FM_OK);
  FEED(0x90, 0x03, 0x00, 0x02, 0x80);
  CHECK(settle() == FM_ERR_REFUSED);
  CHECK(mqtt.counters.refused == 1u);
}

/* ---- time ---- */

static void test_keep_alive(void) {
  setup_up();
  now += 44999u;
  CHECK(settle() == FM_OK);
  SAID("");
  CHECK(wait_ms == 1u);
  now += 1u;
  CHECK(settle() == FM_OK);
  SAID("\xC0\x00");
  CHECK((mqtt.counters.pings == 1u) && (wait_ms == 15000u));
  FEED(0xD0, 0x00);
  CHECK(settle() == FM_OK);
  CHECK(wait_ms == 45000u);
  now += 45000u;
  CHECK(settle() == FM_OK);
  SAID("\xC0\x00");
  now += 15000u; /* no answer: asked again, then given up */
  CHECK(settle() == FM_OK);
  SAID("\xC0\x00");
  now += 15000u;
  CHECK(settle() == FM_OK);
  SAID("\xC0\x00");
  now += 14999u;
  CHECK(settle() == FM_OK);
  CHECK((connection() != 0u) && (wait_ms == 1u));
  now += 1u;
  CHECK(settle() == FM_OK);
  CHECK((connection() == 0u) && (mqtt.counters.silent == 1u) && (wire.closes == 1u));
  connect_with(1u);
}

/* A device that talks pings too, when it hears nothing. */
static void test_talking_to_the_deaf(void) {
  setup_up();
  for (uint32_t i = 0u; i < 89u; i++) {
    now += 1000u;
    CHECK(send("x", 0u, FM_AT_MOST_ONCE) == FM_OK);
    CHECK(settle() == FM_OK);
  }
  CHECK((connection() != 0u) && (mqtt.counters.pings == 3u));
  now += 1000u;
  CHECK(settle() == FM_OK);
  CHECK((connection() == 0u) && (mqtt.counters.silent == 1u));
}

/* One that listens, too. */
static void test_listening_only(void) {
  setup_up();
  for (uint32_t i = 0u; i < 60u; i++) {
    now += 1000u;
    feed("\x30\x04\x00\x01"
         "ax",
         6u);
    CHECK(settle() == FM_OK);
  }
  SAID("\xC0\x00");
}

/* A packet that takes longer than the keep-alive is no silence as long as it advances. */
static void test_long_packet(void) {
  setup_up();
  CHECK(send("x", 4000u, FM_AT_MOST_ONCE) == FM_OK);
  for (uint32_t i = 0u; i < 300u; i++) {
    wire.room = 10u;
    now += 1000u;
    CHECK(settle() == FM_OK);
  }
  CHECK((connection() != 0u) && sending());
  wire.room = 0u;
  now += 89999u;
  CHECK(settle() == FM_OK);
  CHECK(connection() != 0u);
  now += 1u;
  CHECK(settle() == FM_OK);
  CHECK((connection() == 0u) && (mqtt.counters.silent == 1u));
}

static void test_timeouts(void) {
  setup();
  wire.open = FM_AGAIN;
  CHECK(settle() == FM_OK);
  CHECK(wait_ms == 10u);
  now += 9999u;
  CHECK(settle() == FM_OK);
  CHECK((wire.closes == 0u) && (wait_ms == 1u));
  now += 1u;
  CHECK(settle() == FM_OK);
  CHECK((wire.closes == 1u) && (mqtt.counters.failures == 1u));
  wire.open = FM_OK;
  now += wait_ms;
  CHECK(settle() == FM_OK);
  CHECK(wait_ms == 10000u);
  now += 10000u; /* no CONNACK */
  CHECK(settle() == FM_OK);
  CHECK(mqtt.counters.failures == 2u);
  now += wait_ms;
  CHECK(settle() == FM_OK);
  FEED(0x20, 0x02, 0x00, 0x00);
  now += 9999u;
  CHECK(settle() == FM_OK);
  CHECK((mqtt.counters.failures == 2u) && (wait_ms == 10000u));
  now += 10000u; /* no SUBACK */
  CHECK(settle() == FM_OK);
  CHECK(mqtt.counters.failures == 3u);
}

/* Uniform in [w/2, w], w doubling from the least to the most; starts over once it was up. */
static void test_backoff(void) {
  static const uint32_t pairs[][2] = {{0u, 0u}, {100u, 3000u}, {1u, 1u}, {5000u, 200u}, {0x7FFFFFF0u, 0x7FFFFFFFu}};
  for (uint32_t p = 0u; p < (sizeof pairs / sizeof pairs[0]); p++) {
    const uint32_t least_ms = (pairs[p][0] != 0u) ? pairs[p][0] : 500u;
    const uint32_t most_ms = (pairs[p][1] != 0u) ? pairs[p][1] : 60000u;
    bool jitter = false;
    setup();
    config.backoff_min_ms = pairs[p][0];
    config.backoff_max_ms = pairs[p][1];
    for (uint32_t run = 0u; run < 2u; run++) {
      uint64_t w = least_ms;
      for (uint32_t i = 0u; i < 20u; i++) {
        w = (w < most_ms) ? w : most_ms;
        wire.open = FM_ERR_LINK;
        CHECK(poll_once() == FM_OK);
        CHECK((wait_ms >= (uint32_t)((w - (w / 2u)))) && (wait_ms <= (uint32_t)w));
        jitter = jitter || (wait_ms != (uint32_t)w);
        now += wait_ms - 1u;
        const uint32_t opens = wire.opens;
        CHECK(poll_once() == FM_OK);
        CHECK((wire.opens == opens) && (wait_ms == 1u));
        now += 1u;
        w *= 2u;
      }
      wire.open = FM_OK;
      connect_with(0u);
      wire.read_breaks = true;
      (void)poll_once();
      now += mqtt.wait_ms;
      connect_with(0u);
      fm_mqtt_close(&mqtt);
    }
    CHECK(jitter || (most_ms == 1u));
  }
}

/* The whole of a connection's times, begun before the clock wraps. */
static void test_clock_wraps(void) {
  for (uint32_t before = 0u; before < 200000u; before += 7001u) {
    setup();
    now = 0u - before;
    mqtt.phase_at_ms = now; /* the first poll's phase began just now, wherever the clock stands */
    wire.open = FM_ERR_LINK;
    CHECK(settle() == FM_OK);
    CHECK((wait_ms >= 250u) && (wait_ms <= 500u));
    now += wait_ms;
    wire.open = FM_OK;
    connect_with(0u);
    now += 45000u;
    CHECK(settle() == FM_OK);
    SAID("\xC0\x00");
    FEED(0xD0, 0x00);
    now += 15000u;
    CHECK(settle() == FM_OK);
    CHECK((wait_ms == 30000u) || (wait_ms == 45000u));
    SAID("");
    now += 89999u;
    CHECK(settle() == FM_OK);
    SAID("\xC0\x00");
    CHECK(connection() != 0u);
    now += 1u;
    CHECK(settle() == FM_OK);
    CHECK((connection() == 0u) && (mqtt.counters.silent == 1u));
  }
}

/* A poll's work is bounded however much there is to read and write. */
static void test_bounded_poll(void) {
  setup_up();
  for (uint32_t i = 0u; i < 1000u; i++) {
    feed("\x32\x06\x00\x01"
         "a\x00\x01x",
         8u);
  }
  CHECK(send("x", 100000u, FM_AT_MOST_ONCE) == FM_OK);
  CHECK(poll_once() == FM_OK);
  CHECK(wait_ms == 0u);
  CHECK((wire.in_at <= (8u * 128u)) && (wire.out_size <= (8u * 128u)));
}

/* ---- the end ---- */

static void test_close(void) {
  setup();
  fm_mqtt_close(&mqtt); /* never opened */
  CHECK(wire.closes == 0u);
  setup_up();
  fm_mqtt_close(&mqtt);
  SAID("\xE0\x00");
  CHECK((wire.closes == 1u) && (connection() == 0u) && (mqtt.counters.failures == 0u));
  fm_mqtt_close(&mqtt);
  CHECK(wire.closes == 1u);
  connect_with(1u);
  wire.room = 0u;
  CHECK(fetch(7u, 1u) == FM_OK);
  CHECK(settle() == FM_OK);
  wire.room = FOREVER;
  fm_mqtt_close(&mqtt); /* what was begun goes first */
  SAID("\x82\x15\x00\x03\x00\x10"
       "fm/1/f/model/7/1\x00\xE0\x00");
  connect_with(1u);
  wire.room = 0u;
  CHECK(fetch(7u, 2u) == FM_OK);
  CHECK(settle() == FM_OK);
  fm_mqtt_close(&mqtt); /* the stream takes nothing: a will is due, it cannot be helped */
  SAID("");
  wire.room = FOREVER;
  connect_with(1u);
  wire.room = 100u;
  CHECK(send("x", 1000u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  wire.room = FOREVER;
  wire.out_size = 0u;
  fm_mqtt_close(&mqtt); /* half a packet: a DISCONNECT would be read as its rest */
  SAID("");
  CHECK(sending());
  setup();
  wire.open = FM_AGAIN;
  CHECK(settle() == FM_OK);
  fm_mqtt_close(&mqtt);
  SAID("");
  CHECK(wire.closes == 1u);
}

/* Packet identifiers are never 0 and never those of what is in flight, also when all 65,535 were used. */
static void test_identifiers(void) {
  bool zero = false;
  bool taken = false;
  setup_up();
  CHECK(send("x", 0u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(settle() == FM_OK);
  for (uint32_t i = 0u; i < 140000u; i++) {
    uint8_t unsuback[] = {0xB0u, 0x02u, (uint8_t)(mqtt.unsubscribe_id >> 8), (uint8_t)mqtt.unsubscribe_id};
    CHECK(fetch(1u, i) == FM_OK);
    wire.out_size = 0u;
    (void)poll_once();
    if (mqtt.releases) {
      unsuback[2] = (uint8_t)(mqtt.unsubscribe_id >> 8);
      unsuback[3] = (uint8_t)mqtt.unsubscribe_id;
      feed(unsuback, sizeof unsuback);
      (void)poll_once();
    }
    wire.in_at = 0u;
    wire.in_size = 0u;
    zero = zero || (mqtt.subscribe_id == 0u) || ((i > 0u) && (mqtt.unsubscribe_id == 0u));
    taken = taken || (mqtt.subscribe_id == mqtt.out_id) || (mqtt.subscribe_id == mqtt.unsubscribe_id);
  }
  CHECK(!zero && !taken && sending());
}

/* The number of a connection is never 0. */
static void test_connection_number(void) {
  setup();
  mqtt.connection = 0xFFFFFFFFu;
  connect_with(0u);
  CHECK(connection() == 1u);
}

/* ---- noise ---- */

static uint32_t noise = 1u;

static uint32_t random_below(uint32_t bound) {
  noise ^= noise << 13;
  noise ^= noise >> 17;
  noise ^= noise << 5;
  return noise % bound;
}

/* What a broker says: the handshake, and what follows it. */
static uint32_t record(uint8_t *out) {
  static const uint8_t handshake[] = {0x20u, 0x02u, 0x00u, 0x00u, 0x90u, 0x04u, 0x00u, 0x01u, 0x01u, 0x01u};
  static const char rest[] = "\x90\x03\x00\x02\x00\x31\x16\x00\x11"
                             "fm/1/f/model/7/12abc\xB0\x02\x00\x03\xD0\x00\x40\x02\x00\x04";
  uint32_t size = sizeof handshake;
  (void)memcpy(out, handshake, sizeof handshake);
  size += conversation(&out[size], 200u);
  (void)memcpy(&out[size], rest, sizeof rest - 1u);
  return size + (uint32_t)sizeof rest - 1u;
}

/* Poll, send, fetch, abort and lose the connection at random. */
static void rough_use(void) {
  for (uint32_t i = 0u; i < 40u; i++) {
    wire.read_step = 1u + random_below(70u);
    wire.write_step = random_below(50u);
    wire.read_breaks = random_below(30u) == 0u;
    now += random_below(3000u);
    (void)fetch(7u, 12u);
    (void)send("x", random_below(300u), (random_below(2u) == 0u) ? FM_AT_LEAST_ONCE : FM_AT_MOST_ONCE);
    if (random_below(50u) == 0u) {
      link_.api->abort(link_.self);
    }
    (void)poll_once();
    wire.out_size = 0u;
  }
}

/* A broker's bytes with bits flipped, bytes missing or replaced: nothing crashes, and the link recovers. */
static void test_noise(void) {
  static uint8_t recorded[1000];
  const uint32_t size = record(recorded);
  for (uint32_t round = 0u; round < 12000u; round++) {
    const uint32_t skip = ((round % 4u) == 0u) ? 0u : 10u; /* from the handshake on, or after a good one */
    const uint32_t left = size - skip;
    setup();
    noise = round + 1u;
    config.buffer_size = 64u + random_below(200u);
    if (skip != 0u) {
      connect_with(1u);
    }
    feed(&recorded[skip], left);
    if ((round / 4u) < (8u * left)) {
      wire.in[round / 32u] ^= (uint8_t)(1u << ((round / 4u) % 8u)); /* every single bit */
    } else {
      for (uint32_t i = 1u + random_below(6u); i != 0u; i--) {
        wire.in[random_below(left)] = (uint8_t)random_below(256u);
      }
      wire.in_size = left - random_below(left / 2u);
    }
    rough_use();
    CHECK(mqtt.ack_count <= FM_MQTT_PENDING_ACKS);
    CHECK(mqtt.tx_fill <= (config.buffer_size / 2u));
    CHECK(mqtt.rx_fill <= (config.buffer_size - (config.buffer_size / 2u)));
    fm_mqtt_close(&mqtt);
    wire_close(NULL);
    wire.read_step = FOREVER;
    wire.write_step = FOREVER;
    now += 60000u;
    connect_with(1u);
  }
}

int main(void) {
  test_init();
  test_handshake_bytes();
  test_connect_with_everything();
  test_publish_bytes();
  test_publish_sizes();
  test_send_refuses();
  test_resend();
  test_resend_bytes();
  test_at_most_once_is_given_up();
  test_abort();
  test_abort_behind_another_packet();
  test_unreadable_body();
  test_fetch();
  test_fetch_replaced();
  test_fetch_while_writing();
  test_leftover_subscriptions();
  test_incoming_sizes();
  test_incoming_kinds();
  test_backpressure();
  test_break_within_a_message();
  test_malformed();
  test_malformed_handshake();
  test_refusals();
  test_subscription_refused();
  test_keep_alive();
  test_talking_to_the_deaf();
  test_listening_only();
  test_long_packet();
  test_timeouts();
  test_backoff();
  test_clock_wraps();
  test_bounded_poll();
  test_close();
  test_identifiers();
  test_connection_number();
  test_noise();
  return check_report();
}
