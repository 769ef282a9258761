/* SPDX-License-Identifier: Apache-2.0 */
/* Over 350 lines: the cases share one line with two ends and its noise. */
/* The serial link: two ends on a simulated cable with a clock of the test's, seeded faults, resets and cuts; every
 * single-bit flip and truncation of a frame; a hostile peer. */
#include <string.h>

#include "check.h"
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_serial.h"
#include "fm_cobs.h"

#define LINE 65536u
#define LARGEST 70000u

static uint32_t random_state;

static uint32_t draw(uint32_t below) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return (random_state >> 3) % below;
}

/* One direction of the cable. A byte leaves after the time it takes at the line's rate. */
typedef struct {
  uint8_t bytes[LINE];
  uint32_t at_us[LINE];
  uint32_t head, tail, free_us;
} line_t;

typedef struct {
  line_t *in, *out;
  fm_serial_t serial;
  fm_serial_config_t config;
  fm_link_t link;
  uint8_t buffer[FM_SERIAL_MIN_BUFFER];
  bool inside;
  uint32_t total, got, begins, complete, cut;
  bool wrong;
  uint32_t numbers[4096]; /* of the complete messages */
  uint32_t first;         /* number of the message being received */
  uint32_t wait_ms;
  fm_status_t open;
  bool broken;
  bool deaf;     /* broken for writing only */
  bool full;     /* takes nothing */
  uint32_t room; /* bytes that one write takes; 0: any */
} end_t;

static line_t lines[2];
static end_t ends[2];
static uint32_t now_ms, now_us, byte_us, fault_rate; /* faults of each kind a million bytes */
static bool cable_cut;

/* Message n: 4 bytes of n, then bytes that depend on n and their place. */
static uint8_t pattern(uint32_t n, uint32_t i) {
  return (i < 4u) ? (uint8_t)(n >> (8u * i)) : (uint8_t)((n * 31u) + (i * 7u) + (i / 251u));
}

static void line_put(line_t *line, uint8_t byte) {
  if ((line->head - line->tail) < LINE) {
    line->free_us = (((int32_t)(line->free_us - now_us) < 0) ? now_us : line->free_us) + byte_us;
    line->bytes[line->head % LINE] = byte;
    line->at_us[line->head % LINE] = line->free_us;
    line->head++;
  }
}

static bool fault(void) { return (fault_rate != 0u) && (draw(1000000u) < fault_rate); }

static fm_status_t stream_open(void *self) { return ((end_t *)self)->open; }

static int32_t stream_read(void *self, uint8_t *out, uint32_t size) {
  end_t *end = self;
  uint32_t n = 0u;
  while ((n < size) && (end->in->tail != end->in->head) &&
         ((int32_t)(end->in->at_us[end->in->tail % LINE] - now_us) <= 0)) {
    out[n] = end->in->bytes[end->in->tail % LINE];
    end->in->tail++;
    n++;
  }
  return end->broken ? -1 : (int32_t)n;
}

static int32_t stream_write(void *self, const uint8_t *bytes, uint32_t size) {
  end_t *end = self;
  const uint32_t takes = ((end->room != 0u) && (end->room < size)) ? end->room : size;
  if (end->broken || end->deaf) {
    return -1;
  }
  for (uint32_t i = 0u; (i < takes) && !cable_cut && !end->full; i++) {
    uint8_t byte = bytes[i];
    if (fault()) {
      byte ^= (uint8_t)(1u << draw(8u));
    }
    if (fault()) {
      line_put(end->out, (uint8_t)draw(256u));
    }
    if (fault()) {
      line_put(end->out, byte);
    }
    if (!fault()) {
      line_put(end->out, byte);
    }
  }
  return end->full ? 0 : (int32_t)takes;
}

static void stream_close(void *self) {
  end_t *end = self;
  end->broken = false;
  end->deaf = false;
}

static void sink_begin(void *user, uint32_t total) {
  end_t *end = user;
  CHECK(!end->inside);
  end->inside = true;
  end->total = total;
  end->got = 0u;
  end->first = 0u;
  end->begins++;
}

static void sink_data(void *user, const uint8_t *bytes, uint32_t size) {
  end_t *end = user;
  CHECK(end->inside && (size != 0u) && (size <= (end->total - end->got)));
  for (uint32_t i = 0u; i < size; i++) {
    if ((end->got + i) < 4u) {
      end->first |= (uint32_t)bytes[i] << (8u * (end->got + i));
    } else {
      end->wrong = end->wrong || (bytes[i] != pattern(end->first, end->got + i));
    }
  }
  end->got += size;
}

static void sink_end(void *user, bool complete) {
  end_t *end = user;
  CHECK(end->inside && (!complete || (end->got == end->total)));
  end->inside = false;
  if (complete) {
    end->numbers[end->complete % 4096u] = end->first;
    end->complete++;
  } else {
    end->cut++;
  }
}

static void poll_end(uint32_t i) {
  const fm_sink_t sink = {&ends[i], sink_begin, sink_data, sink_end};
  ends[i].wait_ms = 0xFFFFFFFFu;
  CHECK(ends[i].link.api->poll(ends[i].link.self, now_ms, &sink, &ends[i].wait_ms) == FM_OK);
}

/* As a reset does: all the state is gone; what is on the line stays. */
static void start(uint32_t i, uint32_t seed) {
  static const fm_stream_api_t api = {stream_open, stream_read, stream_write, stream_close};
  end_t *end = &ends[i];
  (void)memset(end, 0, sizeof *end);
  end->in = &lines[1u - i];
  end->out = &lines[i];
  end->config.stream.api = &api;
  end->config.stream.self = end;
  end->config.seed = seed;
  end->config.buffer = end->buffer;
  end->config.buffer_size = sizeof end->buffer;
  CHECK(fm_serial_init(&end->serial, &end->config, &end->link) == FM_OK);
}

static void setup(uint32_t seed, uint32_t baud, uint32_t rate) {
  random_state = (seed * 2654435761u) | 1u;
  (void)memset(lines, 0, sizeof lines);
  now_ms = 0xFFFFFC00u; /* both wrap after a second */
  now_us = 0xFFF00000u;
  lines[0].free_us = now_us;
  lines[1].free_us = now_us;
  byte_us = 10000000u / baud;
  fault_rate = rate;
  cable_cut = false;
  start(0u, (2u * seed) + 1u);
  start(1u, (2u * seed) + 2u);
}

static void pass(uint32_t ms) {
  now_ms += ms;
  now_us += 1000u * ms;
}

static void step(void) {
  pass(1u);
  poll_end(0u);
  poll_end(1u);
}

static uint32_t connection(uint32_t i) { return ends[i].link.api->connection(ends[i].link.self); }

static bool sending(uint32_t i) { return ends[i].link.api->sending(ends[i].link.self); }

static bool connect_both(uint32_t limit_ms) {
  for (uint32_t t = 0u; (t < limit_ms) && ((connection(0u) == 0u) || (connection(1u) == 0u)); t++) {
    step();
  }
  return (connection(0u) != 0u) && (connection(1u) != 0u);
}

static uint32_t message_number[2]; /* being sent */
static uint32_t reads_until_error;

static fm_status_t read_body(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  if ((reads_until_error != 0u) && (--reads_until_error == 0u)) {
    return FM_ERR_STORAGE;
  }
  for (uint32_t i = 0u; i < size; i++) {
    out[i] = pattern(*(const uint32_t *)user, 8u + offset + i);
  }
  return FM_OK;
}

static fm_status_t send_message(uint32_t i, uint32_t number, uint32_t size, fm_delivery_t delivery) {
  static uint8_t heads[2][8];
  fm_outgoing_t message = {heads[i], (size < 8u) ? size : 8u, (size < 8u) ? 0u : (size - 8u), read_body,
                           &message_number[i]};
  fm_status_t status;
  if (sending(i)) {
    return FM_AGAIN;
  }
  for (uint32_t k = 0u; k < 8u; k++) {
    heads[i][k] = pattern(number, k);
  }
  message_number[i] = number;
  status = ends[i].link.api->send(ends[i].link.self, &message, delivery);
  return status;
}

/* ---- faults, thousands of seeds ---- */

/* Both ends send; what arrives is each message once, in order, whole and unchanged. */
static void exchange(uint32_t seed, uint32_t baud, uint32_t rate, uint32_t count, uint32_t largest) {
  uint32_t sent[2] = {0u, 0u};
  uint32_t t = 0u;
  setup(seed, baud, rate);
  for (; (t < 3000000u) && ((ends[0].complete < count) || (ends[1].complete < count)); t++) {
    for (uint32_t i = 0u; i < 2u; i++) {
      if ((sent[i] < count) && (send_message(i, sent[i], 4u + draw(largest), FM_AT_LEAST_ONCE) == FM_OK)) {
        sent[i]++;
      }
    }
    step();
  }
  for (uint32_t i = 0u; i < 2u; i++) {
    CHECK((ends[i].complete >= count) && !ends[i].wrong);
    if (ends[i].serial.counters.connections == 1u) {
      CHECK((ends[i].complete == count) && (ends[i].cut == 0u));
    }
    for (uint32_t k = 1u; k < ends[i].complete; k++) {
      const uint32_t by = ends[i].numbers[k] - ends[i].numbers[k - 1u];
      CHECK((by == 1u) || ((by == 0u) && (ends[i].serial.counters.connections > 1u)));
    }
  }
}

static void test_faults(void) {
  for (uint32_t seed = 1u; seed <= 3000u; seed++) {
    exchange(seed, 115200u, (seed % 4u) * 700u, 4u, 600u);
  }
  for (uint32_t seed = 1u; seed <= 60u; seed++) {
    exchange(seed, 921600u, 10000u, 3u, 300u); /* 1 % of each kind: 4 % of all bytes */
  }
  exchange(7u, 9600u, 0u, 3u, 5000u);
  exchange(8u, 921600u, 100u, 2u, LARGEST);
}

/* ---- resets, cuts ---- */

static void test_reset_at_every_poll(void) {
  for (uint32_t at = 0u; at < 260u; at++) {
    const uint32_t i = at % 2u;
    setup(at + 1u, 115200u, 0u);
    (void)connect_both(1000u);
    CHECK(send_message(1u, 5u, 2000u, FM_AT_LEAST_ONCE) == FM_OK);
    for (uint32_t t = 0u; t < at; t++) {
      step();
    }
    start(i, 1000u + at);
    for (uint32_t t = 0u; t < 3000u; t++) {
      if ((i == 1u) && (t == 1500u)) {
        CHECK(send_message(1u, 6u, 2000u, FM_AT_LEAST_ONCE) == FM_OK);
      }
      step();
    }
    CHECK((connection(0u) != 0u) && (connection(1u) != 0u) && !sending(1u) && !ends[0].wrong && !ends[0].inside);
    CHECK((i == 0u) || (ends[0].numbers[ends[0].complete - 1u] == 6u));
    CHECK((ends[0].begins == (ends[0].complete + ends[0].cut)) && (ends[0].complete <= (i + 1u)));
  }
}

static void test_cut_cable(void) {
  setup(3u, 115200u, 0u);
  CHECK(connect_both(1000u));
  CHECK(send_message(0u, 1u, 3000u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(send_message(1u, 1u, 3000u, FM_AT_MOST_ONCE) == FM_OK);
  for (uint32_t t = 0u; t < 100u; t++) {
    step();
  }
  cable_cut = true;
  for (uint32_t t = 0u; t < 21000u; t++) {
    step();
  }
  CHECK((connection(0u) == 0u) && (connection(1u) == 0u) && sending(0u) && !sending(1u));
  CHECK((ends[0].cut == 1u) && (ends[1].cut == 1u));
  cable_cut = false;
  CHECK(connect_both(5000u));
  for (uint32_t t = 0u; t < 1000u; t++) {
    step();
  }
  CHECK((ends[1].complete == 1u) && (ends[0].complete == 0u) && !ends[1].wrong);
  fm_serial_close(&ends[0].serial);
  CHECK(connection(0u) == 0u);
  pass(5u);
  poll_end(1u);
  CHECK(connection(1u) == 0u); /* told at once */
}

static void test_throughput(void) {
  const uint32_t size = LARGEST;
  uint32_t started;
  setup(4u, 115200u, 0u);
  CHECK(connect_both(1000u));
  started = now_us;
  CHECK(send_message(0u, 1u, size, FM_AT_LEAST_ONCE) == FM_OK);
  while (sending(0u)) {
    step();
  }
  CHECK((now_us - started) < ((size / 100u) * byte_us * 108u)); /* 254 bytes for 240, and little more */
  CHECK((ends[0].serial.counters.retransmits == 0u) && (ends[1].complete == 1u));
}

static void test_abort(void) {
  for (uint32_t at = 0u; at < 200u; at++) {
    setup(at + 1u, 115200u, 0u);
    CHECK(connect_both(1000u));
    CHECK(send_message(0u, 1u, 1500u, FM_AT_LEAST_ONCE) == FM_OK);
    for (uint32_t t = 0u; t < at; t++) {
      step();
    }
    if ((at % 2u) == 0u) {
      ends[0].link.api->abort(ends[0].link.self);
    } else {
      reads_until_error = 1u; /* the same from within */
    }
    for (uint32_t t = 0u; t < 500u; t++) {
      step();
    }
    reads_until_error = 0u;
    CHECK(!ends[1].inside && !sending(0u));
    CHECK(send_message(0u, 2u, 50u, FM_AT_LEAST_ONCE) == FM_OK);
    for (uint32_t t = 0u; t < 200u; t++) {
      step();
    }
    CHECK(ends[1].numbers[ends[1].complete - 1u] == 2u);
    CHECK((ends[1].begins == (ends[1].complete + ends[1].cut)) && !ends[1].wrong);
    CHECK(ends[0].serial.counters.connections == 1u);
  }
}

static void test_echo_and_garbage(void) {
  uint32_t errors;
  setup(5u, 115200u, 0u);
  for (uint32_t t = 0u; t < 20000u; t++) { /* its own echo, and bytes that are no frames */
    pass(1u);
    poll_end(0u);
    while (lines[0].tail != lines[0].head) {
      line_put(&lines[1], lines[0].bytes[lines[0].tail % LINE]);
      lines[0].tail++;
    }
    line_put(&lines[1], (t < 10000u) ? (uint8_t)draw(256u) : 0x55u);
  }
  CHECK((connection(0u) == 0u) && (ends[0].begins == 0u) && (ends[0].serial.counters.crc_errors > 10u));
  errors = ends[0].serial.counters.crc_errors;
  line_put(&lines[1], 0u);
  pass(1000u);
  for (uint32_t n = 0u; n < 100u; n++) {
    poll_end(0u);
  }
  CHECK(ends[0].serial.counters.crc_errors == (errors + 1u)); /* 10,000 bytes without a zero are one frame */
}

/* ---- frames, one by one ---- */

static uint32_t frame_size;
static uint8_t frame[300];

static void make_frame(uint8_t control, uint32_t to, uint32_t second, uint32_t third, const void *payload,
                       uint32_t size) {
  const uint32_t fields[3] = {to, second, third};
  uint32_t crc;
  frame[1] = control;
  for (uint32_t i = 0u; i < 3u; i++) {
    frame[2u + (2u * i)] = (uint8_t)fields[i];
    frame[3u + (2u * i)] = (uint8_t)(fields[i] >> 8);
  }
  if (size != 0u) {
    (void)memcpy(&frame[8], payload, size);
  }
  crc = fm_crc32(0u, &frame[1], 7u + size);
  for (uint32_t i = 0u; i < 4u; i++) {
    frame[8u + size + i] = (uint8_t)(crc >> (8u * i));
  }
  fm_cobs_encode(frame, 11u + size);
  frame_size = size + 13u;
}

static void hear(const uint8_t *bytes, uint32_t size) {
  for (uint32_t i = 0u; i < size; i++) {
    line_put(&lines[1], bytes[i]);
  }
  pass(200u);
  for (uint32_t i = 0u; i < 3u; i++) {
    poll_end(0u);
  }
}

static void peer_up(void) {
  setup(6u, 921600u, 0u);
  poll_end(0u);
  make_frame(0u, ends[0].serial.tag, 1u | (240u << 8), 0x1234u, NULL, 0u);
  hear(frame, frame_size);
  CHECK((connection(0u) == 1u) && (ends[0].serial.on.peer_tag == 0x1234u));
}

static void test_every_flip_and_truncation(void) {
  static const uint8_t payload[12] = {8u, 0u, 0u, 0u, 1u, 0u, 0u, 0u, 67u, 74u, 81u, 88u};
  uint8_t whole[300];
  uint32_t size;
  for (uint32_t bit = 0u; bit < (8u * 25u); bit++) {
    peer_up();
    make_frame(2u, ends[0].serial.tag, 0u, 0u, payload, 12u);
    size = frame_size;
    (void)memcpy(whole, frame, size);
    whole[bit / 8u] ^= (uint8_t)(1u << (bit % 8u));
    hear(whole, size);
    hear((const uint8_t *)"", 1u);
    CHECK((ends[0].begins == 0u) && (connection(0u) == 1u));
    hear(frame, frame_size); /* and the next is taken */
    CHECK(ends[0].complete == 1u);
  }
  for (uint32_t cut = 0u; cut < frame_size; cut++) {
    peer_up();
    make_frame(2u, ends[0].serial.tag, 0u, 0u, payload, 12u);
    hear(frame, cut);
    hear((const uint8_t *)"", 1u);
    CHECK(ends[0].complete == ((cut == (frame_size - 1u)) ? 1u : 0u)); /* that was all but its zero */
    hear(frame, frame_size);
    CHECK(ends[0].complete == 1u);
  }
}

static void test_hostile_peer(void) {
  static const uint8_t long_payload[] = {1u, 0u, 0u, 0u, 1u, 2u, 3u};
  for (uint32_t c = 0u; c < 3u; c++) { /* not a length; nothing; more than the length says */
    static const uint32_t sizes[] = {3u, 0u, 7u};
    peer_up();
    make_frame(2u, ends[0].serial.tag, 0u, 0u, long_payload, sizes[c]);
    hear(frame, frame_size);
    CHECK((connection(0u) == 0u) && (ends[0].complete == 0u) && !ends[0].inside);
    CHECK(ends[0].serial.counters.lost == 1u);
  }
  peer_up();
  make_frame(0u, ends[0].serial.tag, 2u | (240u << 8), 0x1234u, NULL, 0u); /* version */
  hear(frame, frame_size);
  make_frame(0u, ends[0].serial.tag, 1u | (15u << 8), 0x1234u, NULL, 0u); /* payload */
  hear(frame, frame_size);
  make_frame(0u, ends[0].serial.tag, 1u | (240u << 8), 0u, NULL, 0u); /* tag */
  hear(frame, frame_size);
  CHECK((connection(0u) == 1u) && (ends[0].serial.counters.lost == 0u) && (ends[0].serial.on.peer_tag == 0x1234u));
  make_frame(0u, ends[0].serial.tag, 1u | (240u << 8), 0x1234u, NULL, 0u); /* the same again: its answer was lost */
  hear(frame, frame_size);
  CHECK((connection(0u) == 1u) && (ends[0].serial.counters.lost == 0u));
  make_frame(0u, ends[0].serial.tag, 1u | (240u << 8), 0x4321u, NULL,
             0u); /* another peer, which this end does not know */
  hear(frame, frame_size);
  CHECK((connection(0u) == 0u) && (ends[0].serial.counters.lost == 1u));
  peer_up();
  make_frame(0u, ends[0].serial.tag + 1u, 1u | (240u << 8), 0x1234u, NULL, 0u); /* it does not know this end any more */
  hear(frame, frame_size);
  CHECK((connection(0u) == 0u) && (ends[0].serial.counters.lost == 1u));
  /* random frames with the right CRC: the sink's checks judge */
  for (uint32_t n = 0u; n < 20000u; n++) {
    uint8_t noise[240];
    for (uint32_t i = 0u; i < sizeof noise; i++) {
      noise[i] = (uint8_t)draw((n % 3u == 0u) ? 256u : 3u);
    }
    make_frame((uint8_t)draw(256u), (draw(8u) == 0u) ? draw(65536u) : ends[0].serial.tag,
               (draw(4u) == 0u) ? (1u | (draw(256u) << 8)) : (ends[0].serial.on.base + draw(2000u)),
               (draw(4u) == 0u) ? draw(65536u) : ends[0].serial.on.in_next, noise, draw(241u));
    hear(frame, frame_size);
    ends[0].complete = 0u;
    (void)send_message(0u, n, 5u + draw(900u), FM_AT_LEAST_ONCE);
  }
}

static void test_streams_that_fail(void) {
  const fm_outgoing_t small = {(const uint8_t *)"12345", 5u, 0u, NULL, NULL};
  setup(9u, 115200u, 0u);
  ends[0].open = FM_AGAIN;
  poll_end(0u);
  CHECK(ends[0].wait_ms == 10u);
  ends[0].open = FM_ERR_LINK;
  pass(10u);
  poll_end(0u);
  CHECK(ends[0].wait_ms == 270u);
  ends[0].open = FM_OK;
  CHECK(connect_both(2000u));
  CHECK(send_message(0u, 3u, 900u, FM_AT_LEAST_ONCE) == FM_OK);
  ends[0].broken = true;
  step();
  CHECK((connection(0u) == 0u) && sending(0u));
  CHECK(connect_both(2000u));
  for (uint32_t t = 0u; t < 300u; t++) {
    step();
  }
  CHECK((ends[1].complete == 1u) && !sending(0u) && (ends[0].serial.connection == 2u));
  CHECK(send_message(0u, 4u, 900u, FM_AT_LEAST_ONCE) == FM_OK);
  CHECK(ends[0].link.api->send(ends[0].link.self, &small, FM_AT_LEAST_ONCE) == FM_AGAIN);
  ends[0].deaf = true;
  step();
  CHECK((connection(0u) == 0u) && sending(0u));
  ends[0].serial.connection = 0xFFFFFFFFu;
  CHECK(connect_both(2000u) && (connection(0u) == 1u)); /* 0 is none */
}

/* A stream that takes a few bytes a write: the frame goes on where it was, and the wait says when to try again. */
static void test_short_writes(void) {
  for (uint32_t room = 1u; room < 40u; room++) {
    setup(room, 921600u, 0u);
    ends[0].room = room;
    poll_end(0u);
    CHECK(ends[0].wait_ms == ((room < 2u) ? 0u : 250u)); /* a greeting has 14 bytes, a poll 8 writes */
    CHECK(connect_both(3000u));
    CHECK(send_message(0u, room, 700u, FM_AT_LEAST_ONCE) == FM_OK);
    for (uint32_t t = 0u; t < 1500u; t++) {
      step();
    }
    CHECK(!sending(0u) && (ends[1].complete == 1u) && !ends[1].wrong);
    CHECK(ends[1].serial.counters.crc_errors == 0u);
  }
}

/* A stream that takes nothing at all in mid-frame. */
static void test_a_full_stream(void) {
  setup(2u, 921600u, 0u);
  ends[0].room = 1u;
  for (uint32_t n = 0u; n < 9u; n++) {
    poll_end(0u);
  }
  CHECK(connect_both(3000u));
  CHECK(send_message(0u, 1u, 50u, FM_AT_LEAST_ONCE) == FM_OK);
  poll_end(0u);
  CHECK((ends[0].wait_ms == 0u) && (ends[0].serial.tx_sent < ends[0].serial.tx_size));
  ends[0].full = true;
  poll_end(0u);
  CHECK((ends[0].wait_ms == 10u) && (ends[0].serial.tx_sent < ends[0].serial.tx_size));
  ends[0].full = false;
  fm_serial_close(&ends[0].serial); /* the half frame is cut off by the zero before the next */
  ends[0].room = 0u;
  CHECK(connect_both(6000u));
  CHECK(!sending(1u) && sending(0u));
  for (uint32_t t = 0u; t < 500u; t++) {
    step();
  }
  CHECK(!sending(0u) && (ends[1].complete == 1u) && !ends[1].wrong);
}

static void test_close(void) {
  setup(10u, 115200u, 0u);
  fm_serial_close(&ends[0].serial); /* never opened */
  CHECK(connect_both(1000u));
  CHECK(send_message(1u, 1u, 3000u, FM_AT_MOST_ONCE) == FM_OK);
  while (!ends[0].inside) {
    step();
  }
  fm_serial_close(&ends[0].serial); /* half a message came: there is no sink to tell it to until the next poll */
  CHECK(ends[0].inside && (ends[0].cut == 0u));
  fm_serial_close(&ends[0].serial);
  CHECK(ends[0].serial.counters.lost == 1u);
  poll_end(0u);
  CHECK(!ends[0].inside && (ends[0].cut == 1u));
  CHECK(connect_both(1000u) && !sending(1u) && (ends[0].begins == 1u));
  CHECK(send_message(1u, 2u, 3000u, FM_AT_LEAST_ONCE) == FM_OK);
  for (uint32_t t = 0u; t < 30u; t++) {
    step();
  }
  ends[1].link.api->abort(ends[1].link.self);
  fm_serial_close(&ends[1].serial); /* with the word of giving up not yet said */
  CHECK(connect_both(1000u));
  CHECK((ends[0].complete == 0u) && !ends[0].inside && (ends[0].cut == ends[0].begins));
}

/* Times of the config's: exact, and measured from then on. */
static void test_times(void) {
  setup(11u, 921600u, 0u);
  ends[0].config.retransmit_ms = 77u;
  ends[0].config.keep_alive_ms = 300u;
  CHECK(connect_both(1000u));
  for (uint32_t t = 0u; t < 20u; t++) {
    step();
  }
  CHECK((ends[0].wait_ms > 250u) && (ends[0].wait_ms <= 300u));
  cable_cut = true;
  CHECK(send_message(0u, 1u, 40u, FM_AT_LEAST_ONCE) == FM_OK);
  poll_end(0u);
  CHECK(ends[0].wait_ms == 77u);
  pass(76u);
  poll_end(0u);
  CHECK((ends[0].wait_ms == 1u) && (ends[0].serial.counters.retransmits == 0u));
  pass(1u);
  poll_end(0u);
  CHECK((ends[0].wait_ms == 154u) && (ends[0].serial.counters.retransmits == 1u));
  for (uint32_t t = 0u; t < 1200u; t++) {
    step();
  }
  CHECK((connection(0u) == 0u) && sending(0u) && (ends[0].serial.counters.lost == 1u));
}

static void test_init(void) {
  fm_stream_api_t api = {stream_open, stream_read, stream_write, stream_close};
  const fm_outgoing_t huge = {NULL, 0x1000000u, 0u, NULL, NULL};
  setup(1u, 9600u, 0u);
  CHECK(fm_serial_init(NULL, &ends[0].config, &ends[0].link) == FM_ERR_ARGUMENT);
  CHECK(fm_serial_init(&ends[0].serial, NULL, &ends[0].link) == FM_ERR_ARGUMENT);
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, NULL) == FM_ERR_ARGUMENT);
  ends[0].config.retransmit_ms = 8001u;
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_ERR_ARGUMENT);
  ends[0].config.retransmit_ms = 8000u;
  ends[0].config.keep_alive_ms = 0x10000001u;
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_ERR_ARGUMENT);
  ends[0].config.keep_alive_ms = 0x10000000u;
  ends[0].config.buffer_size--;
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_ERR_BUFFER);
  ends[0].config.buffer_size++;
  ends[0].config.buffer = NULL;
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_ERR_ARGUMENT);
  ends[0].config.buffer = ends[0].buffer;
  for (uint32_t missing = 0u; missing < 5u; missing++) {
    ends[0].config.stream.api = (missing == 4u) ? NULL : &api;
    api.open = (missing == 0u) ? NULL : stream_open;
    api.read = (missing == 1u) ? NULL : stream_read;
    api.write = (missing == 2u) ? NULL : stream_write;
    api.close = (missing == 3u) ? NULL : stream_close;
    CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_ERR_ARGUMENT);
  }
  ends[0].config.stream.api = &api;
  CHECK(fm_serial_init(&ends[0].serial, &ends[0].config, &ends[0].link) == FM_OK);
  CHECK(ends[0].link.api->fetch == NULL);
  CHECK(ends[0].link.api->send(ends[0].link.self, &huge, FM_AT_MOST_ONCE) == FM_ERR_BUFFER);
  CHECK(send_message(0u, 1u, 0xFFFFFFu + 9u, FM_AT_MOST_ONCE) == FM_ERR_BUFFER);
}

int main(void) {
  test_init();
  test_every_flip_and_truncation();
  test_hostile_peer();
  test_streams_that_fail();
  test_short_writes();
  test_a_full_stream();
  test_close();
  test_times();
  test_echo_and_garbage();
  test_throughput();
  test_abort();
  test_cut_cable();
  test_reset_at_every_poll();
  test_faults();
  return check_report();
}
