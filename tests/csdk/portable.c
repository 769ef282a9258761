/* SPDX-License-Identifier: Apache-2.0 */
/* Figures that must be the same on every machine: codec, CRC, tensors, encodings, serial link and trainer, a line each.
 * golden.h, made by the test, has the golden messages. Small enough for an ATmega2560. */
#include <stdio.h>
#include <string.h>

#include "fedmote/fm_codec.h"
#include "fedmote/fm_crc32.h"
#include "fedmote/fm_serial.h"
#include "fedmote/fm_train.h"
#include "fm_encoding.h"
#include "fm_tensor_io.h"

#ifdef __AVR__
#include <avr/io.h>
#include <avr/pgmspace.h>

static int uart_put(char byte, FILE *stream) {
  (void)stream;
  while ((UCSR0A & (1u << UDRE0)) == 0u) {
  }
  UDR0 = (uint8_t)byte;
  return 0;
}

static FILE uart = FDEV_SETUP_STREAM(uart_put, NULL, _FDEV_SETUP_WRITE);

static void open_output(void) {
  UCSR0B = (uint8_t)(1u << TXEN0);
  stdout = &uart;
}
#else
#define PROGMEM
#define memcpy_P memcpy
static void open_output(void) {}
#endif

#include "golden.h" /* static const uint8_t golden[] PROGMEM: for each message its size in two bytes, then the message */

static void print(const char *what, uint32_t number) { (void)printf("%s %lu\n", what, (unsigned long)number); }

/* Every field of the golden messages comes out and goes in again; of a message cut short, what the verifier says. */
static void codec(void) {
  static uint8_t in[200];
  static uint8_t out[200];
  uint32_t crc = 0u;
  uint32_t count = 0u;
  uint32_t still = 0u;
  for (uint32_t at = 0u; at < (sizeof golden);) {
    uint8_t size[2];
    fm_message_t message;
    uint32_t encoded = 0u;
    (void)memcpy_P(size, &golden[at], 2u);
    const uint32_t total = size[0] | ((uint32_t)size[1] << 8);
    (void)memcpy_P(in, &golden[at + 2u], (size_t)total);
    if ((fm_message_decode(in, total, total, &message) == FM_OK) &&
        (fm_message_encode(&message, out, sizeof out, &encoded) == FM_OK)) {
      count++;
      crc = fm_crc32(crc, out, encoded);
    }
    for (uint32_t cut = 0u; cut < total; cut++) {
      still += (fm_message_decode(in, cut, cut, &message) == FM_OK) ? 1u : 0u;
    }
    at += 2u + total;
  }
  print("messages", count);
  print("encoded", crc);
  print("cut short, and still messages", still);
}

static float values[150];
static float base[150];

static void tensors(void) {
  static const fm_tensor_t table[2] = {{"a", 100u, false, values, base, NULL},
                                       {"b", 50u, false, &values[100], &base[100], NULL}};
  static uint8_t image[600];
  fm_encoder_t encoder = {table, 2u, 3u, 42u, FM_ENCODING_FLOAT32, true};
  float scale = 0.0f;
  for (uint32_t i = 0u; i < 150u; i++) {
    values[i] = ((float)((i * 7919u) & 1023u) - 512.0f) / 64.0f;
    base[i] = (float)i / 16.0f;
  }
  print("layout", fm_tensors_layout_crc32(table, 2u));
  print("read", (uint32_t)fm_encoding_read(&encoder, 0u, 1.0f, 0u, image, 600u));
  print("delta", fm_crc32(0u, image, 600u));
  encoder.encoding = FM_ENCODING_INT8;
  print("scaled", (uint32_t)fm_encoding_scale(&encoder, 30u, 100u, &scale));
  print("scale / 2^-20", (uint32_t)(scale * 1048576.0f));
  print("read", (uint32_t)fm_encoding_read(&encoder, 30u, scale, 0u, image, 100u));
  print("int8", fm_crc32(0u, image, 100u));
}

/* ---- two ends of a line without delay, which loses a byte now and then ---- */

typedef struct {
  uint8_t bytes[300];
  uint32_t fill;
  uint32_t lost;
} wire_t;

typedef struct {
  wire_t *in;
  wire_t *out;
} end_t;

static wire_t wires[2];
static end_t ends[2] = {{&wires[0], &wires[1]}, {&wires[1], &wires[0]}};
static uint8_t sent[900];
static uint32_t received, received_crc, complete;

static fm_status_t end_open(void *self) {
  (void)self;
  return FM_OK;
}

static int32_t end_read(void *self, uint8_t *out, uint32_t size) {
  wire_t *wire = ((end_t *)self)->in;
  const uint32_t taken = (wire->fill < size) ? wire->fill : size;
  (void)memcpy(out, wire->bytes, (size_t)taken);
  (void)memmove(wire->bytes, &wire->bytes[taken], (size_t)(wire->fill - taken));
  wire->fill -= taken;
  return (int32_t)taken;
}

static int32_t end_write(void *self, const uint8_t *bytes, uint32_t size) {
  wire_t *wire = ((end_t *)self)->out;
  uint32_t taken = 0u;
  while ((taken < size) && (wire->fill < sizeof wire->bytes)) {
    wire->lost++;
    if ((wire->lost % 701u) != 0u) {
      wire->bytes[wire->fill] = bytes[taken];
      wire->fill++;
    }
    taken++;
  }
  return (int32_t)taken;
}

static void end_close(void *self) { ((end_t *)self)->in->fill = 0u; }

static void begin(void *user, uint32_t total) {
  (void)user;
  received = 0u;
  received_crc = 0u;
  print("announced", total);
}

static void data(void *user, const uint8_t *bytes, uint32_t size) {
  (void)user;
  received += size;
  received_crc = fm_crc32(received_crc, bytes, size);
}

static void end(void *user, bool whole) {
  (void)user;
  complete += whole ? 1u : 0u;
}

static void line(void) {
  static const fm_stream_api_t api = {end_open, end_read, end_write, end_close};
  static const fm_sink_t sink = {NULL, begin, data, end};
  static fm_serial_t serial[2];
  static uint8_t buffers[2][FM_SERIAL_MIN_BUFFER];
  static fm_serial_config_t configs[2];
  fm_link_t links[2];
  fm_outgoing_t message = {sent, sizeof sent, 0u, NULL, NULL};
  uint32_t now = 0xFFFFFF00u; /* the clock wraps on the way */
  for (uint32_t i = 0u; i < (sizeof sent); i++) {
    sent[i] = (uint8_t)(i * 31u);
  }
  for (uint32_t i = 0u; i < 2u; i++) {
    configs[i].stream.api = &api;
    configs[i].stream.self = &ends[i];
    configs[i].seed = i + 1u;
    configs[i].buffer = buffers[i];
    configs[i].buffer_size = sizeof buffers[i];
    print("init", (uint32_t)fm_serial_init(&serial[i], &configs[i], &links[i]));
  }
  uint32_t taken = 0u;
  for (uint32_t step = 0u; (step < 5000u) && (complete < 3u); step++) {
    uint32_t wait = 1000u;
    if ((taken == complete) && (links[0].api->send(links[0].self, &message, FM_AT_LEAST_ONCE) == FM_OK)) {
      taken++;
    }
    (void)links[step & 1u].api->poll(links[step & 1u].self, now, &sink, &wait);
    now += 5u;
  }
  print("complete", complete);
  print("received", received);
  print("as sent", (received_crc == fm_crc32(0u, sent, sizeof sent)) ? 1u : 0u);
  print("went back", serial[0].counters.retransmits);
}

/* ---- the trainer ---- */

static void read_example(void *user, uint32_t index, float *features, uint32_t *label) {
  (void)user;
  features[0] = (float)((index * 13u) & 31u) / 32.0f;
  features[1] = (float)((index * 29u) & 31u) / 32.0f;
  *label = ((features[0] + features[1]) > 1.0f) ? 1u : 0u;
}

static void training(void) {
  static const uint32_t widths[3] = {2u, 5u, 2u};
  static fm_tensor_t table[4];
  static float parameters[27];
  static uint8_t image[4u * 27u];
  static float arena[60];
  static fm_trainer_t trainer;
  static fm_trainer_config_t config;
  static fm_plan_t plan;
  fm_work_t work;
  (void)memset(&work, 0, sizeof work);
  fm_train_tensors(widths, 2u, parameters, NULL, table);
  fm_train_randomize(widths, 2u, 7u, parameters);
  config.widths = widths;
  config.layers = 2u;
  config.tensors = table;
  config.data.count = 40u;
  config.data.read = read_example;
  config.seed = 3u;
  config.arena = arena;
  config.arena_floats = sizeof arena / sizeof arena[0];
  plan.epochs = 10u;
  plan.batch_size = 8u;
  plan.learning_rate = 0.5f;
  plan.seed = 11u;
  print("arena", fm_train_arena_floats(widths, 2u));
  print("trainer", (uint32_t)fm_trainer_init(&trainer, &config));
  print("begin", (uint32_t)fm_trainer_begin(&trainer, &plan, &work));
  fm_status_t status = FM_OK;
  while (status == FM_OK) {
    status = fm_trainer_step(&trainer, &work);
  }
  print("steps", work.steps);
  print("read", (uint32_t)fm_tensors_read(table, 4u, 15u, false, 0u, image, sizeof image));
  print("parameters", fm_crc32(0u, image, sizeof image));
}

int main(void) {
  open_output();
  codec();
  tensors();
  line();
  training();
  (void)printf("done\n");
#ifdef __AVR__
  for (;;) {
  }
#endif
  return 0;
}
