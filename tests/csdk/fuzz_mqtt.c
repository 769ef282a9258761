/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: an MQTT link at a hostile broker. The input is a seed of 4 bytes, which decides how the stream and the
 * device above behave, and then what the broker says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedmote/fm_mqtt.h"

#define HOLDS(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

#define SEED_SIZE 4u
#define IDLE_POLLS 4u

typedef struct {
  const uint8_t *said; /* by the broker */
  size_t left;
  uint32_t random;
  bool open;
  bool inside; /* a message, as the sink saw it */
  uint32_t total;
  uint32_t got;
  fm_link_t link;
} world_t;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 0 to below - 1. */
static uint32_t draw(world_t *world, uint32_t below) {
  world->random = (world->random * 1664525u) + 1013904223u;
  return (world->random >> 16) % below;
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
  uint32_t n = draw(world, 2u) * (1u + draw(world, 24u)); /* often nothing for now, so that the device gets its turns */
  HOLDS(world->open && (size != 0u));
  n = (n < size) ? n : size;
  n = (n < world->left) ? n : (uint32_t)world->left;
  (void)memcpy(out, world->said, n);
  world->said += n;
  world->left -= n;
  return (draw(world, 256u) == 0u) ? -1 : (int32_t)n;
}

static int32_t world_write(void *self, const uint8_t *bytes, uint32_t size) {
  static volatile uint8_t sink;
  world_t *world = self;
  const uint32_t n = draw(world, size + 1u);
  HOLDS(world->open && (size != 0u));
  for (uint32_t i = 0u; i < size; i++) {
    sink = (uint8_t)(sink ^ bytes[i]);
  }
  return (draw(world, 256u) == 0u) ? -1 : (int32_t)n;
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
  (void)memset(out, (int)(offset & 0xFFu), size);
  return (draw(user, 32u) == 0u) ? FM_ERR_STORAGE : FM_OK;
}

/* What the device above does between two polls. */
static void act(world_t *world, fm_mqtt_t *mqtt) {
  static const uint8_t head[] = "head";
  const fm_link_api_t *api = world->link.api;
  const fm_outgoing_t message = {head, sizeof head, draw(world, 200u), read_body, world};
  switch (draw(world, 8u)) {
  case 0u:
    (void)api->send(mqtt, &message, FM_AT_MOST_ONCE);
    break;
  case 1u:
    (void)api->send(mqtt, &message, FM_AT_LEAST_ONCE);
    break;
  case 2u:
    (void)api->fetch(mqtt, 1u, draw(world, 4u));
    break;
  case 3u:
    api->abort(mqtt);
    HOLDS(!api->sending(mqtt));
    break;
  case 4u:
    if (draw(world, 8u) == 0u) {
      fm_mqtt_close(mqtt);
    }
    break;
  default:
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const fm_stream_api_t stream = {world_open, world_read, world_write, world_close};
  static const uint8_t will[] = {1u, 2u, 3u};
  world_t world = {0};
  const fm_sink_t sink = {&world, sink_begin, sink_data, sink_end};
  fm_mqtt_config_t config = {0};
  fm_mqtt_t mqtt;
  uint32_t now = 0xFFFFF000u; /* wraps on the way */
  uint32_t idle = 0u;
  if (size < SEED_SIZE) {
    return 0;
  }
  (void)memcpy(&world.random, data, SEED_SIZE);
  world.said = &data[SEED_SIZE];
  world.left = size - SEED_SIZE;
  config.stream.api = &stream;
  config.stream.self = &world;
  config.federation = "f";
  config.device_id = "d";
  config.will = will;
  config.will_size = sizeof will;
  config.keep_alive_s = 5u;
  config.buffer_size = FM_MQTT_MIN_BUFFER + (2u * draw(&world, 100u));
  config.buffer = malloc(config.buffer_size);
  HOLDS(config.buffer != NULL);
  HOLDS(fm_mqtt_init(&mqtt, &config, &world.link) == FM_OK);
  while (idle < IDLE_POLLS) {
    uint32_t wait_ms = 0xFFFFFFFFu;
    const size_t before = world.left;
    const fm_status_t status = world.link.api->poll(world.link.self, now, &sink, &wait_ms);
    HOLDS((status == FM_OK) || (status == FM_ERR_REFUSED));
    HOLDS(world.open || !world.inside); /* nothing comes of a message that the connection took with it */
    act(&world, &mqtt);
    now += (draw(&world, 4u) == 0u) ? draw(&world, 4000u) : ((wait_ms < 60000u) ? wait_ms : 1u);
    idle = (world.left == before) ? (idle + ((world.left == 0u) ? 1u : 0u)) : 0u;
  }
  free(config.buffer);
  return 0;
}
