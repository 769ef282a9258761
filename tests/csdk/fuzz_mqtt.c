/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: an MQTT link at a hostile broker. The input is a seed of 4 bytes, which decides how the stream and the
 * device above behave, and then what the broker says. */
#include "fedmote/fm_mqtt.h"
#include "fuzz_link.h"

typedef struct {
  fuzz_t fuzz;
  const uint8_t *said; /* by the broker */
  size_t left;
  fm_link_t link;
} world_t;

static int32_t world_read(void *self, uint8_t *out, uint32_t size) {
  world_t *world = self;
  uint32_t n = fuzz_draw(&world->fuzz, 2u) *
               (1u + fuzz_draw(&world->fuzz, 24u)); /* often nothing for now, so that the device gets its turns */
  HOLDS(world->fuzz.open && (size != 0u));
  n = (n < size) ? n : size;
  n = (n < world->left) ? n : (uint32_t)world->left;
  (void)memcpy(out, world->said, n);
  world->said += n;
  world->left -= n;
  return (fuzz_draw(&world->fuzz, 256u) == 0u) ? -1 : (int32_t)n;
}

static int32_t world_write(void *self, const uint8_t *bytes, uint32_t size) {
  world_t *world = self;
  const uint32_t n = fuzz_draw(&world->fuzz, size + 1u);
  HOLDS(world->fuzz.open && (size != 0u));
  fuzz_touch(bytes, size);
  return (fuzz_draw(&world->fuzz, 256u) == 0u) ? -1 : (int32_t)n;
}

static fm_status_t read_body(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  (void)memset(out, (int)(offset & 0xFFu), size);
  return (fuzz_draw(user, 32u) == 0u) ? FM_ERR_STORAGE : FM_OK;
}

/* What the device above does between two polls. */
static void act(world_t *world, fm_mqtt_t *mqtt) {
  static const uint8_t head[] = "head";
  const fm_link_api_t *api = world->link.api;
  const fm_outgoing_t message = {head, sizeof head, fuzz_draw(&world->fuzz, 200u), read_body, world};
  switch (fuzz_draw(&world->fuzz, 8u)) {
  case 0u:
    (void)api->send(mqtt, &message, FM_AT_MOST_ONCE);
    break;
  case 1u:
    (void)api->send(mqtt, &message, FM_AT_LEAST_ONCE);
    break;
  case 2u:
    (void)api->fetch(mqtt, 1u, fuzz_draw(&world->fuzz, 4u));
    break;
  case 3u:
    api->abort(mqtt);
    HOLDS(!api->sending(mqtt));
    break;
  case 4u:
    if (fuzz_draw(&world->fuzz, 8u) == 0u) {
      fm_mqtt_close(mqtt);
    }
    break;
  default:
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const fm_stream_api_t stream = {fuzz_open, world_read, world_write, fuzz_close};
  static const uint8_t will[] = {1u, 2u, 3u};
  world_t world = {0};
  const fm_sink_t sink = fuzz_sink(&world.fuzz);
  fm_mqtt_config_t config = {0};
  fm_mqtt_t mqtt;
  uint32_t now = 0xFFFFF000u; /* wraps on the way */
  uint32_t idle = 0u;
  if (size < SEED_SIZE) {
    return 0;
  }
  (void)memcpy(&world.fuzz.random, data, SEED_SIZE);
  world.said = &data[SEED_SIZE];
  world.left = size - SEED_SIZE;
  config.stream.api = &stream;
  config.stream.self = &world;
  config.federation = "f";
  config.device_id = "d";
  config.will = will;
  config.will_size = sizeof will;
  config.keep_alive_s = 5u;
  config.buffer_size = FM_MQTT_MIN_BUFFER + (2u * fuzz_draw(&world.fuzz, 100u));
  config.buffer = malloc(config.buffer_size);
  HOLDS(config.buffer != NULL);
  HOLDS(fm_mqtt_init(&mqtt, &config, &world.link) == FM_OK);
  while (idle < IDLE_POLLS) {
    uint32_t wait_ms = 0xFFFFFFFFu;
    const size_t before = world.left;
    const fm_status_t status = world.link.api->poll(world.link.self, now, &sink, &wait_ms);
    HOLDS((status == FM_OK) || (status == FM_ERR_REFUSED));
    HOLDS(world.fuzz.open || !world.fuzz.inside); /* nothing comes of a message that the connection took with it */
    act(&world, &mqtt);
    now += (fuzz_draw(&world.fuzz, 4u) == 0u) ? fuzz_draw(&world.fuzz, 4000u) : ((wait_ms < 60000u) ? wait_ms : 1u);
    idle = (world.left == before) ? (idle + ((world.left == 0u) ? 1u : 0u)) : 0u;
  }
  free(config.buffer);
  return 0;
}
