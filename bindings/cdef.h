/* SPDX-License-Identifier: Apache-2.0 */
/* What Python sees of the C code, read by build_ffi.py. The compiler checks it against the real headers: a struct with `...;` takes its
 * layout from them, a complete one must match. */

/* kernels.h */
typedef struct {
  const uint8_t *data;
  size_t data_size;
  const float *base;
  const float *scales;
  const uint8_t *received;
  size_t chunks;
  size_t chunk_elements;
  const uint32_t *ranges;
  size_t range_count;
  double example_weight;
  int encoding;
} fmb_update_t;

int fmb_fold(double *sum, double *weight, size_t elements, const fmb_update_t *update);
void fmb_finish(const double *sum, const double *weight, double whole, const float *base, float *out, size_t elements);
int fmb_all_finite(const uint8_t *data, size_t elements);
uint32_t fmb_crc32(uint32_t crc, const uint8_t *data, size_t size);

/* fm_status.h, fm_codec.h, wire.h */
typedef struct {
  uint32_t round;
  uint32_t index;
  uint32_t data_offset;
  uint32_t data_size;
  float scale;
} fmb_update_chunk_t;

typedef enum { FM_OK, ... } fm_status_t;

/* The messages themselves come from fm_wire.h, as it is. */
fm_status_t fm_message_decode(const uint8_t *bytes, uint32_t available, uint32_t total, fm_message_t *out);
fm_status_t fm_message_encode(const fm_message_t *message, uint8_t *out, uint32_t capacity, uint32_t *size);
fm_status_t fmb_message_defaults(fm_message_t *message);
int fmb_verify(const uint8_t *message, size_t size);
int fmb_read_update_chunk(const uint8_t *message, size_t size, fmb_update_chunk_t *chunk);

/* device.h */
typedef enum {
  FM_STATE_OFFLINE,
  FM_STATE_GREETING,
  FM_STATE_IDLE,
  FM_STATE_DOWNLOADING,
  FM_STATE_CHECKING,
  FM_STATE_WORKING,
  FM_STATE_SEALING,
  FM_STATE_OFFERING,
  FM_STATE_UPLOADING,
  FM_STATE_CONFIRMING,
  FM_STATE_HOLDING,
  FM_STATE_REFUSED
} fm_state_t;

typedef struct {
  uint32_t messages_in;
  uint32_t messages_out;
  uint32_t bytes_in;
  uint32_t bytes_out;
  uint32_t malformed;
  uint32_t unexpected;
  uint32_t timeouts;
  uint32_t connections;
  uint32_t model_crc_errors;
  uint32_t chunks_in;
  uint32_t chunks_out;
  uint32_t chunks_resumed_in;
  uint32_t chunks_resumed_out;
  uint32_t updates;
  uint32_t partial_updates;
  uint32_t withdrawals;
} fm_client_counters_t;

typedef struct {
  uint32_t bytes_in;
  uint32_t bytes_out;
  uint32_t packets_in;
  uint32_t connections;
  uint32_t failures;
  uint32_t refused;
  uint32_t malformed;
  uint32_t silent;
  uint32_t resent;
  uint32_t pings;
  uint8_t last_return_code;
  bool session_present;
} fm_mqtt_counters_t;

typedef struct {
  uint32_t steps;
  uint32_t planned_steps;
  uint32_t examples;
  uint32_t correct;
  float loss;
  uint32_t covered;
} fm_work_t;

typedef struct {
  uint32_t count;
  float sum;
  uint32_t counts[32];
} fm_histogram_t;

typedef struct {
  fm_client_counters_t counters;
  fm_plan_t plan;
  fm_work_t work;
  uint32_t model_version;
  uint32_t next_chunk;
  uint8_t refusal;
  ...;
} fm_client_t;

typedef struct {
  fm_mqtt_counters_t counters;
  ...;
} fm_mqtt_t;

typedef struct {
  uint32_t bytes_in;
  uint32_t bytes_out;
  uint32_t frames_in;
  uint32_t frames_out;
  uint32_t retransmits;
  uint32_t crc_errors;
  uint32_t connections;
  uint32_t lost;
} fm_serial_counters_t;

typedef struct {
  fm_serial_counters_t counters;
  ...;
} fm_serial_t;

typedef struct {
  uint32_t seed;
  uint32_t retransmit_ms;
  uint32_t keep_alive_ms;
  ...;
} fm_serial_config_t;

/* flash.h, fm_keep.h */
typedef struct {
  uint8_t *bytes;
  uint32_t size;
  uint32_t erase_size;
  uint32_t program_size;
  uint32_t operations;
  uint32_t cut_at;
  uint32_t cut_how;
  bool off;
  uint32_t misused;
} fmb_flash_t;

typedef struct {
  uint32_t chunks;
  uint32_t errors;
  uint32_t restored;
  ...;
} fm_keep_t;

typedef struct {
  uint32_t size;
  uint32_t erase_size;
  uint32_t program_size;
  ...;
} fm_storage_t;

uint32_t fm_keep_size(const fm_storage_t *storage, uint32_t elements, uint32_t least_chunk_elements);

typedef struct {
  char device_id[64];
  char federation[64];
  char host[256];
  char port[16];
  uint32_t baud;
  char username[256];
  char password[256];
  uint32_t widths[5];
  uint32_t layers;
  float *parameters;
  float *base;
  const float *features;
  const uint8_t *labels;
  uint32_t examples;
  uint32_t seed;
  uint32_t keep_alive_s;
  uint32_t backoff_min_ms;
  uint32_t backoff_max_ms;
  uint32_t retry_min_ms;
  uint32_t retry_max_ms;
  uint32_t free_memory_kib;
  uint8_t encodings;
  bool prefer_delta;
  bool memory;
  bool fetch_by_request;
  float *arena;
  uint32_t arena_floats;
  fmb_flash_t *flash;
  void *python;
} fmb_settings_t;

/* memory.h */
typedef struct {
  uint32_t connection;
  bool fetching;
  uint32_t fetch_version;
  uint32_t fetch_index;
  uint8_t delivery;
  ...;
} fmb_mailbox_t;

uint32_t fmb_mailbox_waiting(const fmb_mailbox_t *mailbox);
fm_status_t fmb_mailbox_take(fmb_mailbox_t *mailbox, uint8_t *out);

typedef struct {
  fm_client_t client;
  fm_mqtt_t mqtt;
  fm_serial_t serial;
  fmb_mailbox_t mailbox;
  fmb_settings_t settings;
  fm_keep_t keep;
  uint32_t step_limit;
  const uint32_t *step_limits;
  uint32_t limit_count;
  bool finish_at_limit;
  ...;
} fmb_device_t;

int fmb_device_add_tensor(fmb_device_t *device, const char *name, uint32_t count, bool local, float *data, float *base);
int fmb_device_init(fmb_device_t *device);
uint32_t fmb_device_poll(fmb_device_t *device, uint32_t now_ms);
uint32_t fmb_device_deliver(fmb_device_t *device, const uint8_t *message, uint32_t size, uint32_t now_ms);
void fmb_device_cut(fmb_device_t *device);
void fmb_device_restore(fmb_device_t *device);
int fmb_device_fd(const fmb_device_t *device, bool *writable);
void fmb_device_close(fmb_device_t *device);
void fmb_fleet_run(fmb_device_t **devices, uint32_t count, uint32_t run_ms);
uint32_t fmb_now_ms(void);
uint32_t fmb_device_layout_crc32(const fmb_device_t *device);
uint32_t fm_train_arena_floats(const uint32_t *widths, uint32_t layers);
uint32_t fm_train_parameters(const uint32_t *widths, uint32_t layers);
void fm_train_randomize(const uint32_t *widths, uint32_t layers, uint32_t seed, float *parameters);
fm_state_t fm_client_state(const fm_client_t *client);
bool fm_client_online(const fm_client_t *client);
void fm_client_withdraw(fm_client_t *client, uint8_t reason);
void fm_client_set_device_state(fm_client_t *client, uint8_t battery, uint8_t flags);

/* sansio.h */
typedef struct {
  uint8_t *out;
  uint32_t out_size;
  uint32_t out_fill;
  bool connected;
  bool open;
  ...;
} fmb_pipe_t;

typedef struct {
  uint8_t *bytes;
  uint32_t size;
  uint32_t fill;
  uint32_t messages;
  uint32_t oversized;
  ...;
} fmb_inbox_t;

typedef struct {
  fmb_pipe_t pipe;
  fmb_inbox_t inbox;
  uint32_t wait_ms;
  ...;
} fmb_sansio_t;

uint32_t fmb_sansio_poll(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, uint32_t now_ms);
void fmb_sansio_clear(fmb_sansio_t *self);
int fmb_sansio_send(fmb_sansio_t *self, const uint8_t *bytes, uint32_t size, bool reliable);
bool fmb_sansio_sending(const fmb_sansio_t *self);
uint32_t fmb_sansio_connection(const fmb_sansio_t *self);
int fmb_sansio_fetch(fmb_sansio_t *self, uint32_t version, uint32_t index);

typedef struct {
  const char *federation;
  const char *device_id;
  const char *username;
  const char *password;
  const uint8_t *will;
  uint16_t will_size;
  uint16_t keep_alive_s;
  uint32_t seed;
  uint32_t backoff_min_ms;
  uint32_t backoff_max_ms;
  uint8_t *buffer;
  uint32_t buffer_size;
  ...;
} fm_mqtt_config_t;

typedef struct {
  fmb_sansio_t sansio;
  fm_mqtt_t mqtt;
  fm_mqtt_config_t config;
  ...;
} fmb_mqtt_link_t;

int fmb_mqtt_init(fmb_mqtt_link_t *self);
void fm_mqtt_close(fm_mqtt_t *mqtt);

extern "Python+C" int fmb_python_begin(void *python, uint32_t round, uint32_t task, uint32_t epochs,
                                       uint32_t batch_size, uint32_t max_steps, float learning_rate, float prox_mu,
                                       uint32_t seed, fm_work_t *work);
extern "Python+C" int fmb_python_step(void *python, fm_work_t *work);
extern "Python+C" int fmb_python_evaluate(void *python, fm_work_t *work);
extern "Python+C" int fmb_python_query(void *python, uint32_t field, float low, float high, uint32_t bins,
                                       fm_histogram_t *answer);

typedef struct {
  fmb_sansio_t sansio;
  fm_serial_t serial;
  fm_serial_config_t config;
  ...;
} fmb_serial_link_t;

int fmb_serial_init(fmb_serial_link_t *self);
void fm_serial_close(fm_serial_t *serial);
