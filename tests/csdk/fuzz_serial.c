/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: a serial link at a hostile peer. The input is a seed of 4 bytes, which decides how the stream and the
 * device above behave, and then what the peer says, as records of HOW_SIZE bytes and up to 255 more: either bytes as
 * they are, or a frame whose CRC and stuffing are right and whose tag and sequence numbers are near those that the link
 * expects, since chance would never find them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedmote/fm_crc32.h"
#include "fedmote/fm_serial.h"
#include "fm_cobs.h"

#define HOLDS(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

#define SEED_SIZE 4u
#define IDLE_POLLS 4u

/* A record: how to read it, the frame's control byte, two numbers of 2 bytes, the size of what follows. */
#define HOW_SIZE 7u
#define HOW_RAW 1u       /* what follows goes on the line as it is */
#define HOW_WRONG_TAG 2u /* the first number is the tag's distance from the right one, too */
#define HOW_CORRUPT 4u   /* a bit of the coded frame is flipped */
#define HEADER 7u
#define MOST_PAYLOAD 242u /* what the coding can carry, which is more than a link takes */
#define FRAME_ROOM 256u

typedef struct {
  const uint8_t *input;
  size_t left;
  uint8_t said[FRAME_ROOM]; /* by the peer, the record that is on the line */
  uint32_t said_size;
  uint32_t said_at;
  uint32_t random;
  bool open;
  bool inside; /* a message, as the sink saw it */
  uint32_t total;
  uint32_t got;
  uint32_t body_size; /* of the message under way */
  fm_serial_t serial;
  fm_link_t link;
} world_t;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 0 to below - 1. */
static uint32_t draw(world_t *world, uint32_t below) {
  world->random = (world->random * 1664525u) + 1013904223u;
  return (world->random >> 16) % below;
}

static void put16(uint8_t *out, uint32_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
}

/* A frame as the peer would send it now, but for what the record says. */
static void say_frame(world_t *world, const uint8_t *record, const uint8_t *payload, uint32_t size) {
  const fm_serial_t *serial = &world->serial;
  const uint32_t first = (uint32_t)record[2] | ((uint32_t)record[3] << 8);
  const uint32_t second = (uint32_t)record[4] | ((uint32_t)record[5] << 8);
  const bool greeting = (record[1] & 3u) == 0u;
  uint8_t *frame = &world->said[1];
  uint32_t crc;
  frame[0] = record[1];
  put16(&frame[1], serial->tag + (((record[0] & HOW_WRONG_TAG) != 0u) ? first : 0u));
  put16(&frame[3], greeting ? ((1u | (240u << 8)) ^ first) : (serial->on.base + first));
  put16(&frame[5], greeting ? (0x1235u ^ second) : (serial->on.in_next + second));
  (void)memcpy(&frame[HEADER], payload, size);
  crc = fm_crc32(0u, frame, HEADER + size);
  put16(&frame[HEADER + size], crc);
  put16(&frame[HEADER + size + 2u], crc >> 16);
  fm_cobs_encode(world->said, HEADER + size + 4u);
  world->said_size = HEADER + size + 6u;
  if ((record[0] & HOW_CORRUPT) != 0u) {
    world->said[draw(world, world->said_size)] ^= (uint8_t)(1u << draw(world, 8u));
  }
}

/* Take the next record of the input. */
static void say(world_t *world) {
  world->said_at = 0u;
  world->said_size = 0u;
  if (world->left >= HOW_SIZE) {
    const uint8_t *record = world->input;
    const uint8_t *rest = &record[HOW_SIZE];
    const bool raw = (record[0] & HOW_RAW) != 0u;
    const uint32_t most = raw ? 255u : MOST_PAYLOAD;
    uint32_t size = (record[6] < most) ? record[6] : most;
    size = (size < (world->left - HOW_SIZE)) ? size : (uint32_t)(world->left - HOW_SIZE);
    if (raw) {
      (void)memcpy(world->said, rest, size);
      world->said_size = size;
    } else {
      say_frame(world, record, rest, size);
    }
    world->input = &rest[size];
    world->left -= HOW_SIZE + size;
  } else {
    world->left = 0u;
  }
}

static fm_status_t world_open(void *self) {
  world_t *world = self;
  const uint32_t how = draw(world, 8u);
  HOLDS(!world->open);
  world->open = how > 1u;
  return world->open ? FM_OK : ((how == 1u) ? FM_AGAIN : FM_ERR_LINK);
}

static int32_t world_read(void *self, uint8_t *out, uint32_t size) {
  world_t *world = self;
  uint32_t n = draw(world, 2u) * (1u + draw(world, 64u)); /* often nothing for now, so that the device gets its turns */
  HOLDS(world->open && (size != 0u));
  if ((n != 0u) && (world->said_at == world->said_size)) {
    say(world);
  }
  n = (n < size) ? n : size;
  n = (n < (world->said_size - world->said_at)) ? n : (world->said_size - world->said_at);
  (void)memcpy(out, &world->said[world->said_at], n);
  world->said_at += n;
  return (draw(world, 1024u) == 0u) ? -1 : (int32_t)n;
}

static int32_t world_write(void *self, const uint8_t *bytes, uint32_t size) {
  static volatile uint8_t sink;
  world_t *world = self;
  const uint32_t n = (draw(world, 2u) == 0u) ? size : draw(world, size + 1u);
  HOLDS(world->open && (size != 0u));
  for (uint32_t i = 0u; i < size; i++) {
    sink = (uint8_t)(sink ^ bytes[i]);
  }
  return (draw(world, 1024u) == 0u) ? -1 : (int32_t)n;
}

static void world_close(void *self) { ((world_t *)self)->open = false; }

static void sink_begin(void *user, uint32_t total) {
  world_t *world = user;
  HOLDS(!world->inside);
  world->inside = true;
  world->total = total;
  world->got = 0u;
}

static void sink_data(void *user, const uint8_t *bytes, uint32_t size) {
  static volatile uint8_t sink;
  world_t *world = user;
  HOLDS(world->inside && (size != 0u) && (size <= (world->total - world->got)));
  for (uint32_t i = 0u; i < size; i++) {
    sink = (uint8_t)(sink ^ bytes[i]);
  }
  world->got += size;
}

static void sink_end(void *user, bool complete) {
  world_t *world = user;
  HOLDS(world->inside && (!complete || (world->got == world->total)));
  world->inside = false;
}

static fm_status_t read_body(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  world_t *world = user;
  HOLDS((size != 0u) && (offset < world->body_size) && (size <= (world->body_size - offset)));
  HOLDS(world->link.api->sending(world->link.self));
  (void)memset(out, (int)(offset & 0xFFu), size);
  return (draw(world, 64u) == 0u) ? FM_ERR_STORAGE : FM_OK;
}

static void send(world_t *world, fm_delivery_t delivery) {
  static const uint8_t head[] = "head";
  const fm_outgoing_t message = {head, draw(world, sizeof head + 1u), draw(world, 2000u), read_body, world};
  if (world->link.api->send(world->link.self, &message, delivery) == FM_OK) {
    world->body_size = message.body_size;
  }
}

/* What the device above does between two polls. */
static void act(world_t *world) {
  switch (draw(world, 16u)) {
  case 0u:
  case 1u:
    send(world, FM_AT_MOST_ONCE);
    break;
  case 2u:
  case 3u:
    send(world, FM_AT_LEAST_ONCE);
    break;
  case 4u:
    world->link.api->abort(world->link.self);
    HOLDS(!world->link.api->sending(world->link.self));
    break;
  case 5u:
    if (draw(world, 16u) == 0u) {
      fm_serial_close(&world->serial);
      HOLDS(!world->open && (world->link.api->connection(world->link.self) == 0u));
    }
    break;
  default:
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const fm_stream_api_t stream = {world_open, world_read, world_write, world_close};
  world_t world = {0};
  const fm_sink_t sink = {&world, sink_begin, sink_data, sink_end};
  fm_serial_config_t config = {0};
  uint32_t now = 0xFFFFF000u; /* wraps on the way */
  uint32_t idle = 0u;
  if (size < SEED_SIZE) {
    return 0;
  }
  (void)memcpy(&world.random, data, SEED_SIZE);
  world.input = &data[SEED_SIZE];
  world.left = size - SEED_SIZE;
  config.stream.api = &stream;
  config.stream.self = &world;
  config.seed = world.random;
  config.keep_alive_ms = 1000u;
  config.buffer_size = FM_SERIAL_MIN_BUFFER;
  config.buffer = malloc(config.buffer_size);
  HOLDS(config.buffer != NULL);
  HOLDS(fm_serial_init(&world.serial, &config, &world.link) == FM_OK);
  while (idle < IDLE_POLLS) {
    uint32_t wait_ms = 0xFFFFFFFFu;
    const bool more = (world.left != 0u) || (world.said_at != world.said_size);
    HOLDS(world.link.api->poll(world.link.self, now, &sink, &wait_ms) == FM_OK);
    HOLDS(wait_ms <= 4000u);
    /* nothing comes of a message that the connection took with it */
    HOLDS((world.link.api->connection(world.link.self) != 0u) || !world.inside);
    HOLDS(world.open || (world.link.api->connection(world.link.self) == 0u));
    act(&world);
    now += (draw(&world, 16u) == 0u) ? draw(&world, 1000u) : (wait_ms % 100u);
    idle = more ? 0u : (idle + 1u);
  }
  free(config.buffer);
  return 0;
}
