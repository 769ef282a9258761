/* SPDX-License-Identifier: Apache-2.0 */
/* Over 350 lines: the cases share one flash that loses its power at any operation. */
/* fm_keep on flash that loses power at any operation, and at worse times. tests/server/test_power_cuts.py has the same
 * against the real server. */
#include "fedmote/fm_keep.h"

#include <stdlib.h>

#include "flash.c"
#include "scripted_server.h"

#define CHUNKS 4u /* of the model, and of the update */

static fmb_flash_t flash;
static uint8_t cells[65536];
static fm_storage_t storage;
static fm_keep_t keep;
static bool bare; /* the tensors have no base copies */
static uint32_t boots;

static void format(uint32_t erase_size, uint32_t program_size) {
  memset(&flash, 0, sizeof flash);
  memset(cells, 0, sizeof cells); /* not blank: nobody erased it */
  flash.bytes = cells;
  flash.erase_size = erase_size;
  flash.program_size = program_size;
  fmb_flash_storage(&flash, &storage);
  flash.size = fm_keep_size(&storage, SHARED, 90u);
  CHECK((flash.size != 0u) && (flash.size <= sizeof cells));
  fmb_flash_storage(&flash, &storage);
}

/* The device starts with what the flash has. */
static void boot(void) {
  setup();
  boots++;
  flash.off = false;
  flash.operations = 0u;
  flash.cut_at = 0u;
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  if (bare) {
    d.tensors[0].base = NULL;
    d.tensors[1].base = NULL;
  }
  d.config.seed = 5u + boots;
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
}

/* Polls until something goes out. False: the power went, or nothing comes. */
static bool hears(uint8_t type) {
  const bool out = poll_out(200u);
  return !flash.off && out && took(type);
}

static bool fetches(void) {
  for (uint32_t i = 0u; (i < 50u) && !flash.off && (d.client.job == (uint8_t)FM_STATE_DOWNLOADING); i++) {
    const uint32_t index = d.client.next_chunk;
    (void)poll_out(50u);
    if (!flash.off) {
      CHECK(d.link.fetch_index == index);
      chunk(d.link.fetch_version, index);
    }
  }
  return !flash.off;
}

/* Everything from the device's Hello to its forgetting of round `round`, as far as the power lasts. The update is in
 * `update` then. */
static bool serve(uint32_t round, float *update) {
  bool on;
  connect_link();
  welcome(round);
  if (fm_client_state(&d.client) == FM_STATE_IDLE) {
    plan(round);
  }
  on = fetches() && hears(FM_BODY_UPDATE_BEGIN);
  if (on) {
    status(round, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
    CHECK(take_chunks(update) == CHUNKS);
    CHECK(got.body.update_end.crc32 == fm_crc32(0u, image(update, SHARED), 4u * SHARED));
    receipt(round, d.client.crc32);
    commit(round);
    for (uint32_t i = 0u; i < 5u; i++) {
      poll_once();
    }
    on = !flash.off;
  }
  return on;
}

static void check_update(const float *update) {
  uint32_t wrong = 0u;
  for (uint32_t i = 0u; i < SHARED; i++) {
    wrong += (update[i] != (d.model[i] + 1.5f)) ? 1u : 0u;
  }
  CHECK(wrong == 0u);
}

static void test_cut_everywhere(uint32_t erase_size, uint32_t program_size, bool without_base) {
  static float update[SHARED];
  uint32_t operations;
  bare = without_base;
  format(erase_size, program_size);
  boot();
  CHECK(serve(1u, update));
  check_update(update);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  CHECK(keep.errors == 0u);
  operations = flash.operations;
  CHECK(operations > 40u);
  for (uint32_t cut = 1u; cut <= operations; cut++) {
    for (uint32_t how = 0u; how <= (uint32_t)FMB_CUT_AFTER; how++) {
      uint32_t durable;
      format(erase_size, program_size);
      boot();
      flash.cut_at = cut;
      flash.cut_how = how;
      CHECK(!serve(1u, update));
      durable = keep.chunks;
      boot();
      CHECK((keep.restored >= durable) || (d.client.job == (uint8_t)FM_STATE_IDLE));
      if (d.client.done_round != 1u) {
        memset(update, 0, sizeof update);
        CHECK(serve(1u, update));
        check_update(update);
      }
      CHECK(keep.errors == 0u);
      CHECK(flash.misused == 0u);
    }
  }
  bare = false;
}

/* Round after round: the halves of the journal take turns, and what matters moves along. */
static void test_many_rounds(void) {
  static float update[SHARED];
  format(512u, 8u);
  boot();
  for (uint32_t round = 1u; round <= 60u; round++) {
    CHECK(serve(round, update));
    check_update(update);
    if ((round % 7u) == 0u) {
      boot();
      CHECK(keep.restored == CHUNKS);
      CHECK(d.client.done_round == round);
      CHECK(d.client.model_version == round);
      CHECK(memcmp(d.base, d.model, sizeof d.model) == 0);
    }
    d.link.connection = 0u;
    poll_once();
  }
  CHECK(keep.generation > 4u);
  CHECK(flash.misused == 0u);
}

/* A round for the model that the device has: nothing is fetched and nothing of it written again. */
static void test_same_model_again(void) {
  static float update[SHARED];
  fm_message_t message;
  uint32_t before;
  format(512u, 8u);
  boot();
  CHECK(serve(1u, update));
  boot();
  connect_link();
  welcome(2u);
  message = plan_message(2u);
  message.body.plan.model_version = 1u;
  before = flash.operations;
  give(&message);
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
  CHECK(d.link.fetches == 0u);
  CHECK((flash.operations - before) < 60u); /* the plan and the update alone */
  boot();
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  CHECK(keep.restored == (CHUNKS + 1u));
}

/* Storage that fails without a power cut: counted, and the round goes on. */
static void test_storage_fails(void) {
  static float update[SHARED];
  uint32_t operations;
  format(512u, 8u);
  boot();
  CHECK(serve(1u, update));
  operations = flash.operations;
  for (uint32_t from = 1u; from <= operations; from++) {
    format(512u, 8u);
    boot();
    flash.cut_at = from;
    flash.cut_how = (uint32_t)FMB_CUT_HALF;
    connect_link();
    welcome(1u);
    plan(1u);
    for (uint32_t i = 0u; (i < 50u) && (d.client.job == (uint8_t)FM_STATE_DOWNLOADING); i++) {
      const uint32_t index = d.client.next_chunk;
      (void)poll_out(50u);
      chunk(1u, index);
    }
    CHECK(poll_out(200u));
    CHECK(took(FM_BODY_UPDATE_BEGIN));
    status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
    CHECK(take_chunks(update) == CHUNKS);
    check_update(update);
    receipt(1u, d.client.crc32);
    commit(1u);
    for (uint32_t i = 0u; i < 5u; i++) {
      poll_once();
    }
    CHECK(keep.errors > 0u);
    CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  }
}

static fm_status_t no_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  (void)user;
  (void)offset;
  (void)out;
  (void)size;
  return FM_ERR_STORAGE;
}

static void no_load(void *self, struct fm_client *client) {
  (void)self;
  (void)client;
}

static void test_storage_cannot_be_read(void) {
  format(512u, 8u);
  storage.read = no_read;
  boot();
  CHECK(keep.errors > 0u);
  CHECK(keep.restored == 0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFLINE);
}

/* Any byte of it wrong: the round is done all the same, with what must be fetched or trained again. */
static void test_damage(void) {
  static float update[SHARED];
  static uint8_t good[sizeof cells];
  format(512u, 4u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(fetches());
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
  memcpy(good, cells, sizeof good);
  for (uint32_t at = 0u; at < flash.size; at++) {
    memcpy(cells, good, sizeof good);
    cells[at] ^= 0x41u;
    boot();
    if ((at % 8u) == 0u) {
      memset(update, 0, sizeof update);
      CHECK(serve(1u, update));
      check_update(update);
    }
  }
}

/* From Hello until the server has the update of round 1 and its commit is out. */
static void one_round(void) {
  static float update[SHARED];
  CHECK(serve(1u, update));
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
}

/* Start with tensors of the application's own. */
static void boot_over(float value) {
  setup();
  flash.operations = 0u;
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  for (uint32_t i = 0u; i < SHARED; i++) {
    d.data[i] = value;
    d.base[i] = value;
  }
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
}

/* A model that is not what was written never comes into the tensors, and half a model comes only with its job. */
static void test_tensors_are_not_spoilt(void) {
  format(512u, 8u);
  boot();
  one_round();
  boot_over(-1.0f);
  CHECK(fm_client_model_version(&d.client) == 1u);
  CHECK(d.data[1] == d.model[1]);
  cells[(2u * keep.half_size) + 7u] ^= 0x40u;
  boot_over(-1.0f);
  CHECK(fm_client_model_version(&d.client) == 0u);
  CHECK((d.data[0] == -1.0f) && (d.data[1] == -1.0f) && (d.base[SHARED - 1u] == -1.0f));
  CHECK(keep.errors == 1u);
  format(512u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(20u);
  chunk(1u, 0u);
  for (uint32_t i = 0u; i < 20u; i++) {
    poll_once();
  }
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_BATTERY);
  poll_once();
  boot_over(-1.0f);
  CHECK(d.data[0] == -1.0f);
  CHECK(keep.restored == 0u);
}

/* Up to an update that is durable. */
static void until_durable(void) {
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(fetches());
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
}

/* The update's bytes also come of settings: with others it is trained again, not offered under a CRC of other bytes. */
static void test_other_settings(void) {
  for (uint32_t i = 0u; i < 3u; i++) {
    static float update[SHARED];
    format(512u, 8u);
    until_durable();
    setup();
    CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
    if (i == 0u) {
      d.config.device_id = "pump-8";
    } else if (i == 1u) {
      d.config.device_id = "pump-7";
    } else {
      d.tensors[2].local = false; /* other tensors: nothing is this firmware's */
      d.tensors[0].local = true;
    }
    CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
    CHECK(keep.restored == ((i == 0u) ? CHUNKS : ((i == 1u) ? (CHUNKS + 1u) : 0u)));
    if (i == 0u) {
      CHECK(serve(1u, update));
      check_update(update);
    }
  }
}

/* A local tensor elsewhere in the table: `covered` would mean other tensors. */
static void test_moved_local_tensor(void) {
  format(512u, 8u);
  until_durable();
  setup();
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  {
    const fm_tensor_t head = d.tensors[2];
    d.tensors[2] = d.tensors[1];
    d.tensors[1] = d.tensors[0];
    d.tensors[0] = head;
  }
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
  CHECK(keep.restored == 0u);
}

/* Records that decay while the device runs are not copied under a good CRC when the halves change. */
static void test_records_decay(void) {
  for (uint32_t type = 0u; type < 4u; type++) {
    format(512u, 8u);
    boot();
    one_round();
    if (keep.records[type] != 0u) {
      for (uint32_t byte = 0u; byte < 60u; byte++) {
        cells[keep.half + keep.records[type] + 4u + byte] = 0u;
      }
    }
    keep.end = keep.half_size;
    connect_link();
    welcome(2u);
    d.willing = false; /* nothing but the end of a job is written */
    d.client.done_round = 77u;
    plan(2u);
    for (uint32_t i = 0u; i < 5u; i++) {
      poll_once();
    }
    boot();
    CHECK(fm_client_state(&d.client) == FM_STATE_OFFLINE); /* no job comes back, none divides by zero */
  }
}

static uint32_t failing_erases;

static fm_status_t flaky_erase(void *user, uint32_t offset) {
  fm_status_t status = FM_ERR_STORAGE;
  if (failing_erases == 0u) {
    status = flash_erase(user, offset);
  } else {
    failing_erases--;
  }
  return status;
}

/* A new job that could not be written does not bring the one before it back. */
static void test_failed_job_record(void) {
  fm_message_t message;
  format(512u, 8u);
  storage.erase = flaky_erase;
  boot();
  one_round();
  keep.end = keep.half_size;
  failing_erases = 1u;
  connect_link();
  welcome(2u);
  message = plan_message(2u);
  message.body.plan.model_version = 1u; /* held: the model's record stands */
  give(&message);
  for (uint32_t i = 0u; i < 60u; i++) {
    poll_once();
  }
  CHECK(keep.errors > 0u);
  boot();
  CHECK(d.client.plan.round != 1u);
  CHECK((d.client.plan.round == 2u) && (fm_client_state(&d.client) == FM_STATE_OFFERING));
}

static uint32_t programs_left; /* until one fails half way */

static fm_status_t flaky_program(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  fm_status_t status = FM_ERR_STORAGE;
  if (programs_left != 1u) {
    status = flash_program(user, offset, bytes, size);
  } else {
    for (uint32_t i = 0u; i < (size / 2u); i++) {
      cells[offset + i] &= bytes[i];
    }
  }
  programs_left -= (programs_left != 0u) ? 1u : 0u;
  return status;
}

/* A program that fails once, anywhere in a round: what is written in the next round is found all the same. */
static void test_a_failure_spoils_one_round(void) {
  static float update[SHARED];
  uint32_t programs;
  for (programs = 1u; programs < 200u; programs++) {
    bool failed;
    format(512u, 8u);
    storage.program = flaky_program;
    programs_left = programs;
    boot();
    CHECK(serve(1u, update));
    failed = programs_left == 0u;
    programs_left = 0u;
    d.link.connection = 0u;
    poll_once();
    CHECK(serve(2u, update));
    boot();
    CHECK(d.client.done_round == 2u);
    CHECK(keep.restored == CHUNKS);
    CHECK(d.client.model_version == 2u);
    CHECK(flash.misused == 0u);
    if (!failed) {
      break;
    }
  }
  CHECK((programs > 50u) && (programs < 200u));
}

/* Without base copies training spoils the only model in RAM: it is durable before the first step. */
static void test_training_in_place_waits(void) {
  bare = true;
  format(128u, 8u); /* a block is erased in a poll, so that keeping takes longer than checking */
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  for (uint32_t i = 0u; i < CHUNKS; i++) {
    chunk(1u, i); /* as fast as they are taken */
  }
  for (uint32_t i = 0u; (i < 50u) && (d.begun == 0u); i++) {
    poll_once();
  }
  CHECK(d.begun == 1u);
  CHECK(keep.chunks == CHUNKS);
  bare = false;
}

static uint32_t erases[2];

static fm_status_t counting_erase(void *user, uint32_t offset) {
  if (offset < (2u * keep.half_size)) {
    erases[0]++;
  } else {
    erases[1]++;
  }
  return flash_erase(user, offset);
}

/* Neither many small chunks nor many declined plans wear the journal out. */
static void test_wear(void) {
  fm_message_t message;
  format(512u, 4u);
  storage.erase = counting_erase;
  erases[0] = 0u;
  boot();
  for (uint32_t round = 1u; round <= 300u; round++) {
    connect_link();
    welcome(round);
    d.willing = false;
    message = plan_message(round);
    give(&message);
    poll_once();
  }
  CHECK(erases[0] <= 4u);
  d.willing = true;
  erases[0] = 0u;
  erases[1] = 0u;
  for (uint32_t round = 301u; round <= 320u; round++) {
    connect_link();
    welcome(round);
    message = plan_message(round);
    message.body.plan.model_chunk_elements = 2u; /* 155 chunks */
    give(&message);
    for (uint32_t i = 0u; i < 2000u; i++) {
      if (d.client.job == (uint8_t)FM_STATE_DOWNLOADING) {
        const uint32_t index = d.client.next_chunk;
        fm_message_t m = {0};
        m.type = FM_BODY_MODEL_CHUNK;
        m.body.model_chunk.version = round;
        m.body.model_chunk.index = index;
        m.body.model_chunk.data.data = image(&d.model[2u * index], 2u);
        m.body.model_chunk.data.size = 8u;
        give(&m);
      } else {
        poll_once();
      }
    }
    CHECK(d.client.job == (uint8_t)FM_STATE_OFFERING);
    commit(round);
    d.link.out_count = 0u;
  }
  CHECK(erases[0] < (2u * erases[1]));
}

static uint32_t failing_reads;

static fm_status_t flaky_read(void *user, uint32_t offset, uint8_t *out, uint32_t size) {
  fm_status_t status = FM_ERR_STORAGE;
  if (failing_reads == 0u) {
    status = flash_read(user, offset, out, size);
  } else {
    failing_reads--;
  }
  return status;
}

/* A chip that is busy at the start is asked again before anything is taken for lost. */
static void test_reads_are_tried_again(void) {
  format(512u, 8u);
  boot();
  one_round();
  storage.read = flaky_read;
  failing_reads = 2u;
  boot();
  CHECK(keep.restored == CHUNKS);
  CHECK(d.client.done_round == 1u);
}

/* The application is asked again, and told, when a job comes back. */
static void test_restored_job_is_asked_for(void) {
  format(512u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(fetches());
  boot();
  CHECK(d.state_changes == 0u);
  poll_once();
  CHECK(d.state_changes > 0u);
  boot();
  d.willing = false;
  poll_once();
  CHECK(d.client.counters.withdrawals == 1u);
  connect_link();
  welcome(1u);
  CHECK(poll_out(5u));
  CHECK(took(FM_BODY_WITHDRAW));
  CHECK(got.body.withdraw.reason == FM_WITHDRAW_REASON_BUSY);
}

static void test_withdrawn_is_not_taken_up_again(void) {
  format(512u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(20u);
  chunk(1u, 0u);
  for (uint32_t i = 0u; i < 20u; i++) {
    poll_once();
  }
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_BATTERY);
  for (uint32_t i = 0u; i < 5u; i++) {
    poll_once();
  }
  boot();
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFLINE);
}

/* Another layout of the model: what is there is not this firmware's. */
static void test_other_layout(void) {
  static float update[SHARED];
  format(512u, 8u);
  boot();
  CHECK(serve(1u, update));
  setup();
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  d.tensors[0].name = "v";
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
  CHECK(keep.restored == 0u);
  CHECK(d.client.plan.round == 0u);
}

/* The time of a job that was restored runs from the first poll, wherever the clock is then. */
static void test_time_runs_from_the_start(void) {
  fm_message_t message;
  format(512u, 8u);
  boot();
  connect_link();
  welcome(1u);
  message = plan_message(1u);
  message.body.plan.soft_deadline_ms = 1000u;
  give(&message);
  CHECK(fetches());
  for (uint32_t i = 0u; (i < 50u) && (d.client.job != (uint8_t)FM_STATE_WORKING); i++) {
    poll_once();
  }
  boot();
  d.now = 500000u;
  poll_once();
  CHECK(!d.client.hurry);
  CHECK(fm_client_state(&d.client) == FM_STATE_CHECKING);
  for (uint32_t i = 0u; (i < 50u) && (d.client.work.steps == 0u); i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING); /* one step done, time left */
}

static void test_init_errors(void) {
  fm_keeper_t keeper;
  fm_storage_t bad;
  format(512u, 8u);
  CHECK(fm_keep_init(NULL, &storage, &keeper) == FM_ERR_ARGUMENT);
  CHECK(fm_keep_init(&keep, NULL, &keeper) == FM_ERR_ARGUMENT);
  CHECK(fm_keep_init(&keep, &storage, NULL) == FM_ERR_ARGUMENT);
#define BAD(member, value)                                                                                             \
  bad = storage;                                                                                                       \
  bad.member = (value);                                                                                                \
  CHECK(fm_keep_init(&keep, &bad, &keeper) == FM_ERR_ARGUMENT)
  BAD(read, NULL);
  BAD(program, NULL);
  BAD(erase, NULL);
  BAD(program_size, 0u);
  BAD(program_size, 3u);
  BAD(program_size, 64u);
  BAD(erase_size, 8u);
  BAD(erase_size, 0x200000u);
  BAD(erase_size, 100u);
  BAD(size, storage.size + 8u);
  BAD(size, 0x80000000u);
  bad = storage;
  bad.size = 2048u;
  CHECK(fm_keep_init(&keep, &bad, &keeper) == FM_ERR_BUFFER);
  CHECK(fm_keep_size(NULL, 10u, 1u) == 0u);
  CHECK(fm_keep_size(&storage, 10u, 0u) == 0u);
  CHECK(fm_keep_size(&storage, 0x40000000u, 1000u) == 0u);
  bad.program_size = 5u;
  CHECK(fm_keep_size(&bad, 10u, 1u) == 0u);
  setup();
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  {
    fm_keeper_api_t api = *d.config.keeper.api;
    d.config.keeper.api = &api;
    api.load = NULL;
    CHECK(fm_client_init(&d.client, &d.config) == FM_ERR_ARGUMENT);
    api.load = no_load;
    api.save = NULL;
    CHECK(fm_client_init(&d.client, &d.config) == FM_ERR_ARGUMENT);
  }
}

/* A model that has no room is worked on without being kept. */
static void test_too_small(void) {
  static float update[SHARED];
  format(512u, 8u);
  flash.size = 4096u;
  fmb_flash_storage(&flash, &storage);
  boot();
  CHECK(serve(1u, update));
  check_update(update);
  CHECK(keep.errors > 0u);
  boot();
  CHECK(keep.restored == 0u);
  CHECK(d.client.done_round == 1u);
}

/* Downloaded, trained, sealed and durable: UpdateBegin is in `got`. */
static void until_durable_offer(fm_message_t *message) {
  connect_link();
  welcome(message->body.plan.round);
  give(message);
  CHECK(fetches());
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
}

/* Not only the first round's update. */
static void test_update_of_a_later_round(void) {
  static float update[SHARED];
  fm_message_t message = plan_message(2u);
  format(512u, 8u);
  boot();
  CHECK(serve(1u, update));
  d.link.connection = 0u;
  poll_once();
  until_durable_offer(&message);
  boot();
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  CHECK(keep.restored == (CHUNKS + 1u));
}

/* Of what goes out as chunks from now on. */
static uint32_t crc_of_chunks(uint32_t round) {
  uint32_t crc = 0u;
  status(round, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  while (poll_out(3u) && took(FM_BODY_UPDATE_CHUNK)) {
    crc = fm_crc32(crc, got.body.update_chunk.data.data, got.body.update_chunk.data.size);
  }
  return crc;
}

/* What is offered after the cut is what was offered before it, and is what is sent. */
static void test_offer_is_the_same(uint8_t encodings, bool prefer_delta) {
  fm_message_t message = plan_message(1u);
  fm_update_begin_t before;
  format(512u, 8u);
  boot();
  d.config.encodings = encodings;
  d.config.prefer_delta = prefer_delta;
  message.body.plan.encodings = 5u;
  message.body.plan.kinds = 3u;
  d.covered = 1u;
  d.finish_in_step = true; /* one step of three */
  until_durable_offer(&message);
  before = got.body.update_begin;
  CHECK(before.steps == 1u);
  setup();
  CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
  d.config.encodings = encodings;
  d.config.prefer_delta = prefer_delta;
  CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  connect_link();
  welcome(1u);
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.crc32 == before.crc32);
  CHECK(got.body.update_begin.encoding == before.encoding);
  CHECK(got.body.update_begin.kind == before.kind);
  CHECK(got.body.update_begin.elements == before.elements);
  CHECK(got.body.update_begin.ranges.size == before.ranges.size);
  CHECK(got.body.update_begin.steps == before.steps);
  CHECK(got.body.update_begin.planned_steps == before.planned_steps);
  CHECK(got.body.update_begin.examples == before.examples);
  CHECK(got.body.update_begin.loss == before.loss);
  CHECK(crc_of_chunks(1u) == before.crc32);
}

/* A chunk whose block must be mended; `mending`: the mending's operation at which the power goes once more, 0: none. */
static void test_mended(uint32_t erase_size, uint32_t mending) {
  uint32_t durable;
  format(erase_size, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  while (keep.chunks < 2u) {
    (void)poll_out(50u);
    chunk(1u, d.client.next_chunk);
    for (uint32_t i = 0u; i < 10u; i++) {
      poll_once();
    }
  }
  flash.cut_at = flash.operations + 3u;
  flash.cut_how = (uint32_t)FMB_CUT_GARBAGE;
  (void)fetches();
  CHECK(flash.off);
  durable = keep.chunks;
  CHECK(durable == 2u);
  if (mending != 0u) {
    setup();
    flash.off = false;
    flash.operations = 0u;
    flash.cut_at = mending;
    CHECK(fm_keep_init(&keep, &storage, &d.config.keeper) == FM_OK);
    CHECK(fm_client_init(&d.client, &d.config) == FM_OK);
    durable = ((2u * 400u) / erase_size) * erase_size / 400u; /* those of whole blocks */
  }
  boot();
  CHECK(keep.restored >= durable);
  connect_link();
  welcome(1u);
  (void)poll_out(5u);
  chunk(1u, d.client.next_chunk);
  for (uint32_t i = 0u; i < 10u; i++) {
    poll_once();
  }
  durable = keep.chunks;
  CHECK(durable > 0u);
  boot();
  CHECK(keep.restored >= durable);
  CHECK(flash.misused == 0u);
}

static fm_status_t (*good_program)(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size);
static uint32_t fails_in;
static bool fails_late; /* the bytes are there all the same */

static fm_status_t fails_once(void *user, uint32_t offset, const uint8_t *bytes, uint32_t size) {
  fm_status_t status;
  fails_in -= (fails_in != 0u) ? 1u : 0u;
  status = ((fails_in != 1u) || fails_late) ? good_program(user, offset, bytes, size) : FM_ERR_STORAGE;
  return (fails_in == 1u) ? FM_ERR_STORAGE : status;
}

/* One operation fails, and the storage goes on: what it was about is not programmed a second time, and a later round
 * is kept as if nothing had been. */
static void test_storage_fails_once(bool late) {
  static float update[SHARED];
  bool hit = true;
  for (uint32_t at = 2u; hit; at++) {
    uint32_t durable;
    format(512u, 8u);
    good_program = storage.program;
    storage.program = fails_once;
    fails_late = late;
    boot();
    fails_in = at;
    for (uint32_t round = 1u; round <= 2u; round++) {
      CHECK(serve(round, update));
      check_update(update);
      d.link.connection = 0u;
      poll_once();
      if (round == 1u) {
        durable = keep.chunks;
        boot();
        CHECK(keep.restored >= durable);
      }
    }
    hit = fails_in == 1u;
    fails_in = 0u;
    CHECK(keep.errors <= 1u);
    CHECK(serve(3u, update));
    check_update(update);
    CHECK(flash.misused == 0u);
    boot();
    CHECK((d.client.done_round == 3u) && (keep.restored == CHUNKS));
  }
}

/* A plan of the next round before the former one's update was durable: it is nobody's then. */
static void test_plan_while_the_update_is_saved(void) {
  fm_message_t message = plan_message(2u);
  message.body.plan.model_version = 1u;
  format(128u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(fetches());
  for (uint32_t i = 0u; (i < 200u) && ((d.client.keep_due & (uint8_t)FM_KEEP_UPDATE) == 0u); i++) {
    poll_once();
  }
  CHECK((d.client.keep_due & (uint8_t)FM_KEEP_UPDATE) != 0u);
  d.steps_wanted = 1000u;
  give(&message);
  for (uint32_t i = 0u; i < 60u; i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  boot();
  CHECK(fm_client_state(&d.client) == FM_STATE_CHECKING);
  CHECK(keep.restored == CHUNKS);
}

/* A model that came damaged is not what the storage has in the end. */
static void test_model_fetched_twice(void) {
  format(512u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  d.model[3] += 1.0f;
  CHECK(fetches());
  for (uint32_t i = 0u; (i < 50u) && (d.client.counters.model_crc_errors == 0u); i++) {
    poll_once();
  }
  CHECK(d.client.counters.model_crc_errors == 1u);
  d.model[3] -= 1.0f;
  CHECK(fetches());
  CHECK(hears(FM_BODY_UPDATE_BEGIN));
  boot();
  CHECK(keep.restored == (CHUNKS + 1u));
  CHECK(memcmp(d.base, d.model, sizeof d.model) == 0);
}

/* Training in place spoils the copy in RAM, not the one that is kept. */
static void test_cut_within_training_in_place(void) {
  bare = true;
  format(128u, 8u);
  boot();
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(fetches());
  for (uint32_t i = 0u; (i < 50u) && (d.client.work.steps == 0u); i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  for (uint32_t i = 0u; (i < 20u) && (d.client.keep_due != 0u); i++) {
    (void)d.config.keeper.api->save(d.config.keeper.self, &d.client, d.client.keep_due);
  }
  boot();
  connect_link();
  welcome(1u);
  CHECK(hears(FM_BODY_UPDATE_BEGIN)); /* nothing is fetched before it */
  CHECK(d.link.fetches == 0u);
  CHECK(d.client.counters.model_crc_errors == 0u);
  boot();
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  CHECK(d.client.model_version == 0u); /* the tensors are the update's */
  bare = false;
}

/* An update on a damaged model is not offered: as a delta it would be to another base. */
static void test_update_without_its_model(void) {
  fm_message_t message = plan_message(1u);
  format(512u, 8u);
  boot();
  until_durable_offer(&message);
  cells[(2u * keep.half_size) + 700u] ^= 0x10u;
  boot();
  CHECK(keep.restored == 0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
}

/* The same model, planned in chunks of another size that lie elsewhere. */
static void test_other_chunk_size(void) {
  static float update[SHARED];
  fm_message_t message = plan_message(2u);
  format(512u, 32u);
  boot();
  CHECK(serve(1u, update));
  d.link.connection = 0u;
  poll_once();
  message.body.plan.model_version = 1u;
  message.body.plan.model_chunk_elements = 90u;
  until_durable_offer(&message);
  boot();
  CHECK(keep.restored == (CHUNKS + 1u));
  CHECK(memcmp(d.base, d.model, sizeof d.model) == 0);
}

/* A model that the application had kept is kept here too from its plan on. */
static void test_model_of_the_application(void) {
  fm_message_t message = plan_message(1u);
  format(512u, 8u);
  boot();
  memcpy(d.base, d.model, sizeof d.model);
  fm_client_restore_model(&d.client, 1u, message.body.plan.model_crc32);
  until_durable_offer(&message);
  CHECK(d.link.fetches == 0u);
  boot();
  CHECK(keep.restored == (CHUNKS + 1u));
}

/* A query takes no space; after a reset the server asks again. */
static void test_query_is_dropped(void) {
  format(256u, 1u);
  boot();
  one_round();
  fm_message_t m = query_message(3u, 4u);
  connect_link();
  welcome(3u);
  d.steps_wanted = 1000u;
  give(&m);
  poll_once();
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  boot();
  CHECK(d.client.job == (uint8_t)FM_STATE_IDLE);
  CHECK(keep.errors == 0u);
  connect_link();
  welcome(3u);
  d.steps_wanted = 2u;
  give(&m);
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_ANSWER));
  receipt(3u, 77u);
  boot();
  CHECK(d.client.job == (uint8_t)FM_STATE_IDLE);
}

int main(void) {
  test_cut_everywhere(256u, 1u, false);
  test_cut_everywhere(128u, 4u, true);
  test_cut_everywhere(4096u, 8u, false);
  test_cut_everywhere(512u, 32u, true);
  test_many_rounds();
  test_same_model_again();
  test_storage_fails();
  test_storage_cannot_be_read();
  test_damage();
  test_tensors_are_not_spoilt();
  test_other_settings();
  test_moved_local_tensor();
  test_records_decay();
  test_failed_job_record();
  test_a_failure_spoils_one_round();
  test_training_in_place_waits();
  test_wear();
  test_reads_are_tried_again();
  test_restored_job_is_asked_for();
  test_withdrawn_is_not_taken_up_again();
  test_other_layout();
  test_time_runs_from_the_start();
  test_init_errors();
  test_too_small();
  test_update_of_a_later_round();
  test_offer_is_the_same(0u, false);
  test_offer_is_the_same(0u, true);
  test_offer_is_the_same(4u, false);
  test_offer_is_the_same(4u, true);
  test_mended(4096u, 0u);
  test_mended(512u, 0u);
  for (uint32_t operation = 1u; operation < 20u; operation++) {
    test_mended(512u, operation);
  }
  test_storage_fails_once(false);
  test_storage_fails_once(true);
  test_plan_while_the_update_is_saved();
  test_model_fetched_twice();
  test_cut_within_training_in_place();
  test_update_without_its_model();
  test_other_chunk_size();
  test_model_of_the_application();
  test_query_is_dropped();
  return check_report();
}
