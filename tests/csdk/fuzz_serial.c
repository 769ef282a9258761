/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: a serial link at a hostile peer. The input is a seed of 4 bytes, which decides how the stream and the
 * device above behave, and then what the peer says, as records of HOW_SIZE bytes and up to 255 more: either bytes as
 * they are, or a frame whose CRC and stuffing are right and whose tag and sequence numbers are near those that the link
 * expects, since chance would never find them. */
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_serial.h"
#include "fm_cobs.h"
#include "fuzz_link.h"

/* A record: how to read it, the frame's control byte, two numbers of 2 bytes, the size of what follows. */
#define HOW_SIZE 7u
#define HOW_RAW 1u       /* what follows goes on the line as it is */
#define HOW_WRONG_TAG 2u /* the first number is the tag's distance from the right one, too */
#define HOW_CORRUPT 4u   /* a bit of the coded frame is flipped */
#define HEADER 7u
#define MOST_PAYLOAD 242u /* what the coding can carry, which is more than a link takes */
#define FRAME_ROOM 256u

typedef struct {
  fuzz_t fuzz;
  const uint8_t *input;
  size_t left;
  uint8_t said[FRAME_ROOM]; /* by the peer, the record that is on the line */
  uint32_t said_size;
  uint32_t said_at;
  uint32_t body_size; /* of the message under way */
  fm_serial_t serial;
  fm_link_t link;
} world_t;

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
    world->said[fuzz_draw(&world->fuzz, world->said_size)] ^= (uint8_t)(1u << fuzz_draw(&world->fuzz, 8u));
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

static int32_t world_read(void *self, uint8_t *out, uint32_t size) {
  world_t *world = self;
  uint32_t n = fuzz_draw(&world->fuzz, 2u) *
               (1u + fuzz_draw(&world->fuzz, 64u)); /* often nothing for now, so that the device gets its turns */
  HOLDS(world->fuzz.open && (size != 0u));
  if ((n != 0u) && (world->said_at == world->said_size)) {
    say(world);
  }
  n = (n < size) ? n : size;
  n = (n < (world->said_size - world->said_at)) ? n : (world->said_size - world->said_at);
  (void)memcpy(out, &world->said[world->said_at], n);
  world->said_at += n;
  return (fuzz_draw(&world->fuzz, 1024u) == 0u) ? -1 : (int32_t)n;
}

static int32_t world_write(void *self, const uint8_t *bytes, uint32_t size) {
  world_t *world = self;
  const uint32_t n = (fuzz_draw(&world->fuzz, 2u) == 0u) ? size : fuzz_draw(&world->fuzz, size + 1u);
  HOLDS(world->fuzz.open && (size != 0u));
  fuzz_touch(bytes, size);
  return (fuzz_draw(&world->fuzz, 1024u) == 0u) ? -1 : (int32_t)n;
}

static fm_status_t read_body(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  world_t *world = user;
  HOLDS((size != 0u) && (offset < world->body_size) && (size <= (world->body_size - offset)));
  HOLDS(world->link.api->sending(world->link.self));
  (void)memset(out, (int)(offset & 0xFFu), size);
  return (fuzz_draw(&world->fuzz, 64u) == 0u) ? FM_ERR_STORAGE : FM_OK;
}

static void send(world_t *world, fm_delivery_t delivery) {
  static const uint8_t head[] = "head";
  const fm_outgoing_t message = {head, fuzz_draw(&world->fuzz, sizeof head + 1u), fuzz_draw(&world->fuzz, 2000u),
                                 read_body, world};
  if (world->link.api->send(world->link.self, &message, delivery) == FM_OK) {
    world->body_size = message.body_size;
  }
}

/* What the device above does between two polls. */
static void act(world_t *world) {
  switch (fuzz_draw(&world->fuzz, 16u)) {
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
    if (fuzz_draw(&world->fuzz, 16u) == 0u) {
      fm_serial_close(&world->serial);
      HOLDS(!world->fuzz.open && (world->link.api->connection(world->link.self) == 0u));
    }
    break;
  default:
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const fm_stream_api_t stream = {fuzz_open, world_read, world_write, fuzz_close};
  world_t world = {0};
  const fm_sink_t sink = fuzz_sink(&world.fuzz);
  fm_serial_config_t config = {0};
  uint32_t now = 0xFFFFF000u; /* wraps on the way */
  uint32_t idle = 0u;
  if (size < SEED_SIZE) {
    return 0;
  }
  (void)memcpy(&world.fuzz.random, data, SEED_SIZE);
  world.input = &data[SEED_SIZE];
  world.left = size - SEED_SIZE;
  config.stream.api = &stream;
  config.stream.self = &world;
  config.seed = world.fuzz.random;
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
    HOLDS((world.link.api->connection(world.link.self) != 0u) || !world.fuzz.inside);
    HOLDS(world.fuzz.open || (world.link.api->connection(world.link.self) == 0u));
    act(&world);
    now += (fuzz_draw(&world.fuzz, 16u) == 0u) ? fuzz_draw(&world.fuzz, 1000u) : (wait_ms % 100u);
    idle = more ? 0u : (idle + 1u);
  }
  free(config.buffer);
  return 0;
}
