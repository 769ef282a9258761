/* SPDX-License-Identifier: Apache-2.0 */
/* Over 350 lines: the cases share one scripted server, and each is a conversation that is read from the top. */
/* The device core against a server written out by hand. */
#include <math.h>
#include <stdlib.h>

#include "fm_client_internal.h"
#include "fm_encoding.h"
#include "fm_tensor_io.h"
#include "scripted_server.h"

/* ---- tests ---- */

static void test_whole_round(void) {
  float update[SHARED];
  setup();
  poll_once();
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFLINE);
  connect_link();
  CHECK(fm_client_state(&d.client) == FM_STATE_GREETING);
  CHECK(got.body.hello.device_id.size == 6u && memcmp(got.body.hello.device_id.data, "pump-7", 6u) == 0);
  CHECK(got.body.hello.elements == SHARED);
  CHECK(got.body.hello.examples == 36u);
  CHECK(got.body.hello.kinds == 3u);
  CHECK(got.body.hello.layout_crc32 == fm_tensors_layout_crc32(d.tensors, 3u));
  CHECK(got.body.hello.held_round == 0u);
  welcome(0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  plan(4u);
  (void)poll_out(2u);
  download(4u, 0u);
  CHECK(memcmp(d.base, d.model, sizeof d.model) == 0);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(d.begun == 1u);
  CHECK(got.body.update_begin.round == 4u && got.body.update_begin.base_version == 4u);
  CHECK(got.body.update_begin.elements == SHARED && got.body.update_begin.chunk_elements == 90u);
  CHECK(got.body.update_begin.steps == 3u && got.body.update_begin.planned_steps == 3u);
  CHECK(got.body.update_begin.examples == 12u && got.body.update_begin.ranges.size == 0u);
  const uint32_t crc = got.body.update_begin.crc32;
  status(4u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  CHECK(got.body.update_end.chunks == 4u && got.body.update_end.crc32 == crc);
  CHECK(memcmp(update, d.data, sizeof update) == 0);
  CHECK(fm_crc32(0u, image(update, SHARED), 4u * SHARED) == crc);
  CHECK(update[8] == d.model[8] + 1.5f);
  CHECK(fm_client_state(&d.client) == FM_STATE_CONFIRMING);
  receipt(4u, crc ^ 1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_CONFIRMING);
  receipt(4u, crc);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  commit(3u);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  commit(4u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  CHECK(d.client.counters.updates == 1u && d.client.counters.partial_updates == 0u);
  CHECK(d.state_changes > 5u);
  plan(4u); /* delivered twice by the broker */
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  CHECK(d.data[W + B] == 0.0f); /* the local tensor was never touched */
}

static void test_next_round_reuses_the_model_it_holds(void) {
  setup();
  until_offer(2u);
  /* the same model again: nothing is fetched, training starts from the base */
  fm_message_t m = plan_message(3u);
  m.body.plan.model_version = 2u;
  const uint32_t fetches = d.link.fetches;
  give(&m);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(d.link.fetches == fetches);
  CHECK(d.data[8] == d.model[8] + 1.5f);
}

static void test_restored_model(void) {
  setup();
  memcpy(d.base, d.model, sizeof d.model);
  fm_client_restore_model(&d.client, 6u, fm_crc32(0u, image(d.model, SHARED), 4u * SHARED));
  connect_link();
  CHECK(got.body.hello.model_version == 6u);
  welcome(6u);
  plan(6u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(d.link.fetches == 0u);
  /* and one that was spoilt meanwhile is fetched */
  setup();
  fm_client_restore_model(&d.client, 6u, fm_crc32(0u, image(d.model, SHARED), 4u * SHARED));
  connect_link();
  welcome(6u);
  plan(6u);
  (void)poll_out(50u);
  CHECK(d.client.counters.model_crc_errors == 1u);
  CHECK(d.link.fetches == 1u);
}

static void test_download_resumes(void) {
  setup();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  chunk(1u, 0u);
  (void)poll_out(2u);
  chunk(1u, 1u);
  (void)poll_out(2u);
  /* chunk 2 breaks off in the middle, and the link with it */
  d.link.in_size = 0u;
  fm_message_t m = {0};
  uint32_t size = 0u;
  m.type = FM_BODY_MODEL_CHUNK;
  m.body.model_chunk.version = 1u;
  m.body.model_chunk.index = 2u;
  m.body.model_chunk.data.size = 400u;
  CHECK(fm_message_encode(&m, d.link.in, sizeof d.link.in, &size) == FM_OK);
  d.link.in_size = 300u;
  d.link.in_total = size + 400u;
  d.link.in_broken = true;
  poll_once();
  d.link.connection = 0u;
  poll_once();
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
  CHECK(!fm_client_online(&d.client));
  connect_link();
  welcome(1u);
  (void)poll_out(2u);
  plan(1u); /* the server says it again, as it must */
  (void)poll_out(2u);
  CHECK(d.client.counters.chunks_resumed_in == 2u);
  download(1u, 2u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(d.client.counters.chunks_in == 4u);
}

static void test_wrong_chunks_change_nothing(void) {
  setup();
  connect_link();
  welcome(1u);
  chunk(1u, 0u); /* not asked for */
  CHECK(d.base[1] == 0.0f);
  plan(1u);
  (void)poll_out(2u);
  chunk(2u, 0u);
  chunk(1u, 1u);
  CHECK(d.base[1] == 0.0f);
  fm_message_t m = {0};
  m.type = FM_BODY_MODEL_CHUNK;
  m.body.model_chunk.version = 1u;
  m.body.model_chunk.data.data = image(d.model, 99u);
  m.body.model_chunk.data.size = 396u; /* not the chunk's size */
  give(&m);
  CHECK(d.base[1] == 0.0f);
  CHECK(d.client.counters.unexpected >= 4u);
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
}

static void test_missing_chunk_is_asked_for(void) {
  setup();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  CHECK(d.link.fetches == 1u);
  d.now += 61000u;
  (void)poll_out(3u);
  CHECK(d.link.fetches == 2u);
  d.now += 61000u;
  CHECK(poll_out(3u)); /* the link's own means failed twice */
  CHECK(took(FM_BODY_CHUNK_REQUEST));
  CHECK(got.body.chunk_request.version == 1u && got.body.chunk_request.index == 0u);
  CHECK(d.client.counters.timeouts == 2u);
  chunk(1u, 0u);
  CHECK(d.client.counters.chunks_in == 1u);
  CHECK(poll_out(3u) && took(FM_BODY_CHUNK_REQUEST)); /* what worked serves the next one at once */
  CHECK(got.body.chunk_request.index == 1u);
  CHECK(d.link.fetches == 2u);
}

static void test_serial_style_link_requests_chunks(void) {
  setup();
  d.config.link.api = &plain_api;
  connect_link();
  welcome(1u);
  plan(1u);
  for (uint32_t i = 0u; i < 4u; i++) {
    CHECK(poll_out(3u));
    CHECK(took(FM_BODY_CHUNK_REQUEST));
    CHECK(got.body.chunk_request.index == i);
    chunk(1u, i);
  }
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
}

static void test_wrong_model_crc(void) {
  setup();
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.model_crc32 ^= 1u;
  give(&m);
  (void)poll_out(2u);
  for (uint32_t time = 0u; time < 3u; time++) {
    download(1u, 0u);
    (void)poll_out(10u);
  }
  CHECK(d.client.counters.model_crc_errors == 3u);
  CHECK(took(FM_BODY_WITHDRAW)); /* three times wrong: not the line's fault */
  CHECK(d.begun == 0u);
}

static void test_upload_resumes(void) {
  float update[SHARED] = {0};
  setup();
  until_offer(9u);
  const uint32_t crc = got.body.update_begin.crc32;
  status(9u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(poll_out(2u));
  CHECK(took(FM_BODY_UPDATE_CHUNK));
  d.link.connection = 0u;
  d.link.out_count = 0u;
  poll_once();
  connect_link();
  CHECK(got.body.hello.held_round == 9u && got.body.hello.held_crc32 == crc);
  welcome(9u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.crc32 == crc);
  const uint8_t have = 0x02u; /* of chunks 1.. : chunk 2 */
  status(9u, FM_SLOT_STATE_GRANTED, 1u, &have, 1u);
  CHECK(take_chunks(update) == 2u);
  CHECK(update[0] == 0.0f && update[90] != 0.0f && update[180] == 0.0f && update[270] != 0.0f);
  CHECK(d.client.counters.chunks_resumed_out == 2u);
  /* the last chunk was lost on the way */
  status(9u, FM_SLOT_STATE_MISSING, 3u, NULL, 0u);
  memset(update, 0, sizeof update);
  CHECK(take_chunks(update) == 1u);
  CHECK(update[270] != 0.0f);
  /* receipt, then a reconnect before the commit: offered again, receipted again, counted once */
  receipt(9u, crc);
  d.link.connection = 0u;
  poll_once();
  connect_link();
  welcome(9u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  receipt(9u, crc);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  CHECK(d.client.counters.updates == 1u);
  /* the round was committed while away */
  d.link.connection = 0u;
  poll_once();
  connect_link();
  welcome(10u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
}

static void test_no_slot(void) {
  setup();
  until_offer(1u);
  status(1u, FM_SLOT_STATE_WAIT, 0u, NULL, 0u);
  CHECK(!poll_out(3u));
  CHECK(d.wait <= 700u);
  d.now += 700u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_UPLOADING);
  status(1u, FM_SLOT_STATE_WAIT, 0u, NULL, 0u); /* the slot was taken back */
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  status(2u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u); /* of another round */
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
}

static void test_slot_granted_by_the_plan(void) {
  float update[SHARED];
  setup();
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.slot_granted = true;
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(take_chunks(update) == 4u);
  CHECK(memcmp(update, d.data, sizeof update) == 0);
}

static void test_full_window(void) {
  /* 310 chunks of one element: the account of 32 bytes covers 256 of them */
  uint8_t have[32];
  uint32_t sent = 0u;
  setup();
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.update_chunk_elements = 1u;
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  memset(have, 0xFF, sizeof have);
  have[3] = 0xFEu;
  status(1u, FM_SLOT_STATE_GRANTED, 2u, have, sizeof have);
  while (poll_out(3u) && took(FM_BODY_UPDATE_CHUNK)) {
    CHECK(got.body.update_chunk.index == 26u);
    sent++;
  }
  CHECK(sent == 1u);
  CHECK(got.type == FM_BODY_UPDATE_END);
  status(1u, FM_SLOT_STATE_MISSING, 258u, NULL, 0u);
  sent = 0u;
  while (poll_out(3u) && took(FM_BODY_UPDATE_CHUNK)) {
    sent++;
  }
  CHECK(sent == 52u);
}

static void start_working(uint32_t steps) {
  setup();
  d.steps_wanted = steps;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  for (uint32_t i = 0u; (i < 50u) && (d.client.work.steps < 2u); i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
}

static void test_partial_update(void) {
  float update[SHARED];
  start_working(100u);
  closing(7u); /* of another round */
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  closing(1u);
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.steps >= 2u && got.body.update_begin.steps < 10u);
  CHECK(got.body.update_begin.planned_steps == 100u);
  CHECK(got.body.update_begin.examples == 4u * got.body.update_begin.steps);
  const uint32_t crc = got.body.update_begin.crc32;
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  receipt(1u, crc);
  CHECK(d.client.counters.partial_updates == 1u);
}

static void test_soft_deadline_without_notice(void) {
  setup();
  d.steps_wanted = 1000u;
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.soft_deadline_ms = 5000u;
  d.now = 0xFFFFF000u; /* the clock wraps before the deadline */
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  for (uint32_t i = 0u; i < 10u; i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  d.now += 5000u;
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
}

static void test_closing_before_and_without_partial(void) {
  setup();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  closing(1u); /* nothing to send yet: the model is fetched and one step done */
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
  download(1u, 0u);
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.steps == 1u && got.body.update_begin.planned_steps == 3u);
  /* a plan that takes no partial update: the device goes on */
  setup();
  d.steps_wanted = 50u;
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.partial_allowed = false;
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  for (uint32_t i = 0u; i < 10u; i++) {
    poll_once();
  }
  closing(1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  closing(1u);
  CHECK(poll_out(100u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.steps == 50u);
  closing(1u); /* nothing to shorten any more */
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
}

static void test_notice_before_the_first_step(void) {
  setup();
  d.step_status = FM_AGAIN;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  for (uint32_t i = 0u; i < 10u; i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  CHECK(d.wait == 10u);
  closing(1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  d.step_status = FM_OK;
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.steps == 1u);
}

/* Sleeping as long as poll says must not leave the update unsealed, whichever way the training ended. */
static void test_no_sleep_between_training_and_offer(void) {
  for (uint32_t way = 0u; way < 2u; way++) {
    setup();
    d.finish_in_step = way == 1u;
    connect_link();
    welcome(1u);
    plan(1u);
    (void)poll_out(2u);
    download(1u, 0u);
    for (uint32_t i = 0u; (i < 50u) && (fm_client_state(&d.client) <= FM_STATE_WORKING); i++) {
      poll_once();
      CHECK(d.wait == 0u);
    }
    CHECK(fm_client_state(&d.client) == FM_STATE_SEALING);
  }
}

static void test_finish_early_from_a_step(void) {
  setup();
  d.finish_in_step = true;
  until_offer(1u);
  CHECK(got.body.update_begin.steps == 1u);
}

static void test_training_fails(void) {
  setup();
  d.step_status = FM_ERR_TRAINING;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_WITHDRAW));
  CHECK(got.body.withdraw.reason == FM_WITHDRAW_REASON_TRAINING_FAILED);
  setup();
  d.begin_status = FM_ERR_TRAINING;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_WITHDRAW));
  setup();
  d.app.train_step = NULL;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_WITHDRAW));
}

static void test_evaluate(void) {
  setup();
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.task = FM_TASK_EVALUATE;
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_EVALUATION));
  CHECK(got.body.evaluation.examples == 12u && got.body.evaluation.correct == 9u);
  CHECK(got.body.evaluation.loss == 0.25f && got.body.evaluation.model_version == 1u);
  d.now += 61000u;
  CHECK(poll_out(3u)); /* no answer: again */
  CHECK(took(FM_BODY_EVALUATION));
  d.link.connection = 0u;
  poll_once();
  connect_link();
  CHECK(got.body.hello.held_round == 0u);
  welcome(1u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_EVALUATION));
  CHECK(got.body.evaluation.seed == 77u);
  receipt(1u, 78u); /* of another task of the round */
  CHECK(fm_client_state(&d.client) == FM_STATE_CONFIRMING);
  receipt(1u, 77u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  give(&m);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  m.body.plan.seed++; /* the round's next task */
  give(&m);
  CHECK(fm_client_state(&d.client) == FM_STATE_CHECKING); /* the model is still here */
}

static uint32_t count_at(uint32_t bin) {
  const uint8_t *b = &got.body.answer.counts.data[4u * bin];
  return b[0] | ((uint32_t)b[1] << 8) | ((uint32_t)b[2] << 16) | ((uint32_t)b[3] << 24);
}

static void test_query(void) {
  setup();
  d.steps_wanted = 300u;
  connect_link();
  welcome(1u);
  fm_message_t m = query_message(1u, 3u);
  give(&m);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING); /* no model is fetched */
  for (uint32_t repeat = 0u; repeat < 2u; repeat++) {    /* no answer: the same again */
    CHECK(poll_out(400u));
    CHECK(took(FM_BODY_ANSWER));
    CHECK((got.body.answer.round == 1u) && (got.body.answer.seed == 77u));
    CHECK((got.body.answer.count == 1200u) && (got.body.answer.sum == 1800.0f));
    CHECK(got.body.answer.counts.size == 12u);
    CHECK((count_at(0u) == 400u) && (count_at(1u) == 400u) && (count_at(2u) == 400u));
    d.now += 61000u;
  }
  d.link.connection = 0u;
  poll_once();
  connect_link();
  welcome(1u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_ANSWER));
  CHECK(count_at(2u) == 400u);
  receipt(1u, 77u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  give(&m); /* delivered twice */
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  m = query_message(1u, 32u); /* refined, in the same round; a message of this size fits the least buffer */
  m.body.plan.seed = 78u;
  give(&m);
  CHECK(poll_out(400u));
  CHECK(took(FM_BODY_ANSWER));
  CHECK((got.body.answer.seed == 78u) && (got.body.answer.count == 1200u) && (got.body.answer.counts.size == 128u));
  CHECK((count_at(0u) == 38u) && (count_at(31u) == 37u));
  plan(1u); /* and then the round's training */
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
}

static void test_query_that_the_application_cannot(void) {
  for (uint32_t i = 0u; i < 2u; i++) {
    setup();
    d.app.query_step = (i == 0u) ? NULL : app_query;
    d.step_status = FM_ERR_UNSUPPORTED;
    connect_link();
    welcome(1u);
    fm_message_t m = query_message(1u, 3u);
    give(&m);
    CHECK(poll_out(3u));
    CHECK(took(FM_BODY_WITHDRAW));
    CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  }
}

/* What is half counted is of no use: a query goes on when it is told to hurry. */
static void test_query_is_complete_or_nothing(void) {
  setup();
  d.steps_wanted = 20u;
  connect_link();
  welcome(1u);
  fm_message_t m = query_message(1u, 3u);
  give(&m);
  closing(1u);
  CHECK(poll_out(40u));
  CHECK(took(FM_BODY_ANSWER));
  CHECK(got.body.answer.count == 80u);
}

static void test_evaluate_closes_early(void) {
  for (uint32_t started = 0u; started < 2u; started++) {
    setup();
    d.steps_wanted = 1000u;
    d.step_status = (started != 0u) ? FM_OK : FM_AGAIN;
    connect_link();
    welcome(1u);
    fm_message_t m = plan_message(1u);
    m.body.plan.task = FM_TASK_EVALUATE;
    give(&m);
    (void)poll_out(2u);
    download(1u, 0u);
    for (uint32_t i = 0u; i < 10u; i++) {
      poll_once();
    }
    closing(1u);
    d.step_status = FM_OK;
    CHECK(poll_out(4u));
    CHECK(took(FM_BODY_EVALUATION));
    CHECK((got.body.evaluation.examples == 4u) == (started == 0u));
  }
}

static void test_unwilling_and_withdraw(void) {
  setup();
  d.willing = false;
  connect_link();
  welcome(1u);
  plan(1u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_WITHDRAW));
  CHECK(got.body.withdraw.reason == FM_WITHDRAW_REASON_BUSY);
  start_working(100u);
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_BATTERY);
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_BATTERY); /* nothing left to withdraw from */
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_WITHDRAW));
  CHECK(got.body.withdraw.reason == FM_WITHDRAW_REASON_BATTERY && got.body.withdraw.round == 1u);
  CHECK(!poll_out(3u));
  CHECK(d.client.counters.withdrawals == 1u);
}

/* A withdrawal that was on its way when the link broke is said again; a chunk is not. */
static void test_withdraw_on_its_way(void) {
  setup();
  start_working(100u);
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_BATTERY);
  CHECK(poll_out(3u));
  d.link.stuck = true;
  connect_link();
  CHECK(d.link.aborts == 1u);
  welcome(1u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_WITHDRAW));
  CHECK(got.body.withdraw.reason == FM_WITHDRAW_REASON_BATTERY && got.body.withdraw.round == 1u);
  d.steps_wanted = 3u;
  until_offer(2u);
  status(2u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_CHUNK));
  d.link.stuck = true;
  connect_link();
  welcome(2u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
}

/* What the broker kept of an earlier connection says nothing of this one. */
static void test_welcome_of_an_earlier_connection(void) {
  fm_message_t m = {0};
  setup();
  until_offer(1u);
  m.type = FM_BODY_WELCOME;
  m.body.welcome.protocol = 1u;
  m.body.welcome.boot = d.client.boot;
  m.body.welcome.open_round = 9u;
  connect_link();
  CHECK(got.body.hello.boot == d.client.boot);
  give(&m);
  CHECK(!fm_client_online(&d.client));
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING);
  CHECK(d.client.counters.unexpected == 1u);
  welcome(1u);
  CHECK(fm_client_online(&d.client));
}

/* The commit may be lost, or the server another by now: a device that holds an update asks, but rarely. */
static void test_holding_asks_again(void) {
  static float update[SHARED];
  setup();
  until_offer(1u);
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  receipt(1u, d.client.crc32);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  d.now += 29000u;
  CHECK(!poll_out(3u));
  d.now += 32000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  receipt(1u, d.client.crc32);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  CHECK(d.client.counters.updates == 1u);
  d.now += 61000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u); /* a server that lost what it had folded */
  CHECK(take_chunks(update) == 4u);
  receipt(1u, d.client.crc32);
  commit(1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  CHECK(d.client.counters.updates == 1u);
}

static void test_bad_plans(void) {
  for (uint32_t i = 0u; i < 10u; i++) {
    setup();
    connect_link();
    welcome(1u);
    fm_message_t m = plan_message(1u);
    fm_plan_t *p = &m.body.plan;
    p->model_elements += (i == 0u) ? 1u : 0u;
    p->model_chunk_elements = (i == 1u) ? 0u : ((i == 2u) ? 16385u : p->model_chunk_elements);
    p->update_chunk_elements = (i == 3u) ? 0u : ((i == 4u) ? 16385u : p->update_chunk_elements);
    p->encodings = (i == 5u) ? 8u : p->encodings;
    p->kinds = (i == 6u) ? 0u : p->kinds;
    p->model_version = (i == 7u) ? 0u : p->model_version;
    p->task = (i >= 8u) ? (uint8_t)FM_TASK_QUERY : p->task;
    p->query_bins = (i == 9u) ? 33u : 0u;
    give(&m);
    CHECK(poll_out(3u));
    CHECK(took(FM_BODY_WITHDRAW));
    CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  }
}

static void test_new_plan_replaces_the_job(void) {
  start_working(100u);
  plan(1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING); /* the same again */
  fm_message_t old = plan_message(1u);
  old.body.plan.round = 0u;
  give(&old);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  plan(2u);
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING);
  CHECK(d.client.plan.round == 2u);
  commit(2u); /* and the round ends without this device */
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
}

static void test_round_over_while_away(void) {
  start_working(100u);
  d.link.connection = 0u;
  poll_once();
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING); /* training goes on in the tunnel */
  connect_link();
  welcome(1u);
  CHECK(fm_client_state(&d.client) == FM_STATE_WORKING);
  d.link.connection = 0u;
  poll_once();
  connect_link();
  welcome(2u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
}

static void test_refusals(void) {
  setup();
  connect_link();
  refuse(0u, 3000u);
  CHECK(!poll_out(3u));
  d.now += 3000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_HELLO));
  refuse(0u, 0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_REFUSED);
  CHECK(fm_client_poll(&d.client, d.now, &d.wait) == FM_ERR_REFUSED);
  CHECK(d.client.refusal == FM_REFUSAL_REASON_LAYOUT);
  d.now += 600000u;
  CHECK(!poll_out(5u));
  connect_link(); /* a new connection asks again */
  welcome(0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  refuse(5u, 0u); /* of a round it has nothing to do with */
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  setup();
  until_offer(5u);
  refuse(5u, 0u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
}

/* A device that holds an update asks for its commit rarely; a server that says that it started is asked at once. */
static void test_a_held_update_does_not_slow_hello(void) {
  static float update[SHARED];
  setup();
  until_offer(1u);
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  receipt(1u, d.client.crc32);
  CHECK(fm_client_state(&d.client) == FM_STATE_HOLDING);
  refuse(0u, 500u);
  d.now += 500u;
  CHECK(poll_out(3u) && took(FM_BODY_HELLO));
  d.now += 2000u; /* lost: the server was not up yet */
  CHECK(poll_out(3u) && took(FM_BODY_HELLO));
  welcome(1u);
  CHECK(poll_out(3u) && took(FM_BODY_UPDATE_BEGIN));
}

/* Work that goes on before Welcome must not stop the Hellos. */
static void test_hello_is_repeated_while_work_goes_on(void) {
  start_working(1000u);
  d.link.connection = 0u;
  poll_once();
  d.link.connection = 7u;
  CHECK(poll_out(3u) && took(FM_BODY_HELLO));
  fm_client_finish_early(&d.client); /* sealing and offering follow, without a session */
  for (uint32_t i = 0u; i < 20u; i++) {
    poll_once();
  }
  CHECK(fm_client_state(&d.client) == FM_STATE_OFFERING && !fm_client_online(&d.client));
  CHECK(d.wait <= 60000u);
  d.now += 60000u;
  CHECK(poll_out(3u) && took(FM_BODY_HELLO));
}

/* The application withdraws while a chunk is half there: the rest of it changes nothing. */
static void test_withdraw_within_a_chunk(void) {
  fm_message_t m = {0};
  uint32_t size = 0u;
  fm_sink_t sink;
  setup();
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  m.type = FM_BODY_MODEL_CHUNK;
  m.body.model_chunk.version = 1u;
  m.body.model_chunk.data.size = 400u;
  CHECK(fm_message_encode(&m, d.link.in, sizeof d.link.in, &size) == FM_OK);
  (void)memset(&d.link.in[size], 0x3F, 400u);
  sink = fm_client_sink(&d.client);
  sink.begin(sink.user, size + 400u);
  sink.data(sink.user, d.link.in, 300u);
  fm_client_withdraw(&d.client, FM_WITHDRAW_REASON_APPLICATION);
  sink.data(sink.user, &d.link.in[300], size + 100u);
  sink.end(sink.user, true);
  CHECK(d.client.counters.chunks_in == 0u);
  CHECK(d.client.job == (uint8_t)FM_STATE_IDLE);
  CHECK(poll_out(3u) && took(FM_BODY_WITHDRAW));
  CHECK(!poll_out(3u)); /* and no chunk is asked for */
}

static void test_retries_back_off(void) {
  uint32_t last = 0u;
  setup();
  connect_link();
  for (uint32_t i = 0u; i < 10u; i++) {
    const uint32_t before = d.now;
    poll_once();
    CHECK(d.wait <= 60000u && d.wait >= 500u);
    while (d.link.out_count == 0u) {
      d.now += 100u;
      poll_once();
    }
    CHECK(took(FM_BODY_HELLO));
    last = d.now - before;
  }
  CHECK(last >= 30000u && last <= 60200u);
  CHECK(d.client.counters.timeouts == 10u);
  /* offers and ends are said again, too */
  setup();
  until_offer(1u);
  d.now += 61000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  float update[SHARED];
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  d.now += 61000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_UPDATE_END));
}

static void test_messages_out_of_place(void) {
  setup();
  connect_link();
  plan(1u); /* before Welcome */
  CHECK(d.client.counters.unexpected == 1u);
  fm_message_t m = {0};
  m.type = FM_BODY_WELCOME;
  m.body.welcome.boot = d.client.boot + 1u; /* for an earlier start of this device */
  give(&m);
  CHECK(!fm_client_online(&d.client));
  welcome(0u);
  m.type = FM_BODY_PROGRESS;
  memset(&m.body, 0, sizeof m.body);
  give(&m);
  receipt(1u, 0u);
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  closing(1u);
  commit(1u);
  CHECK(d.client.counters.unexpected == 5u);
  CHECK(fm_client_state(&d.client) == FM_STATE_IDLE);
  uint8_t junk[400];
  memset(junk, 0xA5, sizeof junk);
  give_bytes(junk, 40u);
  give_bytes(junk, sizeof junk); /* longer than the buffer, and no chunk */
  CHECK(d.client.counters.malformed == 2u);
}

static void test_busy_link(void) {
  setup();
  d.link.connection = 99u;
  d.link.busy = true;
  CHECK(!poll_out(3u));
  d.link.busy = false;
  d.link.stuck = true;
  poll_once();
  CHECK(d.link.out_count == 0u);
  d.link.connection = 100u; /* what hung in the link is given up */
  CHECK(poll_out(3u));
  CHECK(d.link.aborts == 1u);
  CHECK(took(FM_BODY_HELLO));
  welcome(1u);
  plan(1u);
  d.link.busy = true;
  (void)poll_out(3u);
  const uint32_t fetches = d.link.fetches;
  d.link.busy = false;
  (void)poll_out(3u);
  CHECK(d.link.fetches >= fetches);
}

static void test_coverage(void) {
  float update[SHARED] = {0};
  setup();
  d.covered = 0x2u; /* only the bias was trained */
  until_offer(1u);
  CHECK(got.body.update_begin.elements == B);
  CHECK(got.body.update_begin.ranges.size == 8u);
  CHECK(fm_range_at(got.body.update_begin.ranges, 0u).first == W);
  CHECK(fm_range_at(got.body.update_begin.ranges, 0u).count == B);
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 1u);
  CHECK(memcmp(update, &d.data[W], 4u * B) == 0);
  setup();
  d.covered = 0x4u; /* the local tensor alone: nothing to send */
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_WITHDRAW));
  /* neighbours become one range, and what is apart stays apart */
  setup();
  d.tensors[0].count = 100u;
  d.tensors[1] = (fm_tensor_t){"m", 200u, false, &d.data[100], &d.base[100], NULL};
  d.tensors[2] = (fm_tensor_t){"z", B, false, &d.data[W], &d.base[W], NULL};
  d.covered = 0x5u;
  until_offer(1u);
  CHECK(got.body.update_begin.ranges.size == 16u);
  CHECK(fm_range_at(got.body.update_begin.ranges, 1u).first == W);
  setup();
  d.tensors[0].count = 100u;
  d.tensors[1] = (fm_tensor_t){"m", 200u, false, &d.data[100], &d.base[100], NULL};
  d.tensors[2] = (fm_tensor_t){"z", B, false, &d.data[W], &d.base[W], NULL};
  d.covered = 0x3u;
  until_offer(1u);
  CHECK(got.body.update_begin.ranges.size == 8u);
  CHECK(fm_range_at(got.body.update_begin.ranges, 0u).count == W);
}

static void test_int8_delta(void) {
  setup();
  d.config.encodings = 1u << FM_ENCODING_INT8;
  d.config.prefer_delta = true;
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.encodings = 5u;
  m.body.plan.kinds = 3u;
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  CHECK(got.body.update_begin.encoding == FM_ENCODING_INT8);
  CHECK(got.body.update_begin.kind == FM_UPDATE_KIND_DELTA);
  const uint32_t want = got.body.update_begin.crc32;
  uint32_t crc = 0u;
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  while (poll_out(3u) && took(FM_BODY_UPDATE_CHUNK)) {
    const fm_update_chunk_t *c = &got.body.update_chunk;
    crc = fm_crc32(crc, c->data.data, c->data.size);
    for (uint32_t i = 0u; i < c->data.size; i++) {
      CHECK(fabsf((float)(int8_t)c->data.data[i] * c->scale - 1.5f) <= c->scale);
    }
  }
  CHECK(crc == want);
}

static void test_float_delta(void) {
  float update[SHARED];
  setup();
  connect_link();
  welcome(1u);
  fm_message_t m = plan_message(1u);
  m.body.plan.kinds = 2u; /* only deltas */
  give(&m);
  (void)poll_out(2u);
  download(1u, 0u);
  CHECK(poll_out(50u));
  CHECK(took(FM_BODY_UPDATE_BEGIN));
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  for (uint32_t i = 0u; i < SHARED; i++) {
    CHECK(update[i] == 1.5f);
  }
}

static void test_int8_rounding(void) {
  float values[1000], base[1000];
  uint8_t codes[1000], again[1000];
  float scale = 0.0f;
  double mean = 0.0;
  const fm_tensor_t tensor = {"t", 1000u, false, values, base, NULL};
  const fm_encoder_t e = {&tensor, 1u, 1u, 42u, FM_ENCODING_INT8, false};
  for (uint32_t i = 0u; i < 1000u; i++) {
    values[i] = (i == 0u) ? 127.0f : 0.25f; /* scale 1: a quarter of the codes should be 1 */
    base[i] = 0.0f;
  }
  CHECK(fm_encoding_scale(&e, 0u, 1000u, &scale) == FM_OK && scale == 1.0f);
  CHECK(fm_encoding_read(&e, 0u, scale, 0u, codes, 1000u) == FM_OK);
  for (uint32_t i = 0u; i < 1000u; i++) { /* any cut gives the same bytes */
    CHECK(fm_encoding_read(&e, 0u, scale, i, &again[i], 1u) == FM_OK);
  }
  CHECK(memcmp(codes, again, sizeof codes) == 0);
  for (uint32_t i = 1u; i < 1000u; i++) {
    mean += codes[i] / 999.0;
  }
  CHECK(mean > 0.20 && mean < 0.30);
  for (uint32_t i = 0u; i < 1000u; i++) {
    values[i] = -values[i];
  }
  CHECK(fm_encoding_read(&e, 0u, 1.0f, 0u, codes, 1000u) == FM_OK);
  CHECK((int8_t)codes[0] == -127);
  mean = 0.0;
  for (uint32_t i = 1u; i < 1000u; i++) {
    mean += (int8_t)codes[i] / 999.0;
  }
  CHECK(mean < -0.20 && mean > -0.30);
  /* zeros, and values that are no numbers */
  memset(values, 0, sizeof values);
  CHECK(fm_encoding_scale(&e, 0u, 1000u, &scale) == FM_OK && scale == 0.0f);
  CHECK(fm_encoding_read(&e, 0u, scale, 0u, codes, 1000u) == FM_OK && codes[5] == 0u);
  values[7] = INFINITY;
  CHECK(fm_encoding_scale(&e, 0u, 1000u, &scale) == FM_OK && isnan(scale));
  values[7] = NAN;
  CHECK(fm_encoding_scale(&e, 0u, 1000u, &scale) == FM_OK && isnan(scale));
  CHECK(fm_encoding_read(&e, 0u, scale, 0u, codes, 1000u) == FM_OK);
  CHECK(fm_encoding_width(FM_ENCODING_FLOAT32) == 4u);
}

static void test_flash_tensors(void) {
  float update[SHARED];
  setup();
  d.tensors[1] = (fm_tensor_t){"b", B, false, NULL, NULL, &tensor_flash_io};
  until_offer(1u);
  CHECK(memcmp(d.flash, image(&d.model[W], B), sizeof d.flash) == 0);
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  CHECK(take_chunks(update) == 4u);
  CHECK(memcmp(&update[W], &d.model[W], 4u * B) == 0);
  CHECK(d.client.model_version == 0u); /* trained in place without a base: the model is spoilt */
  /* flash that fails while the model is written, checked and sealed */
  setup();
  d.tensors[1] = (fm_tensor_t){"b", B, false, NULL, NULL, &tensor_flash_io};
  connect_link();
  CHECK(got.body.hello.kinds == 1u);
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  chunk(1u, 0u);
  (void)poll_out(2u);
  chunk(1u, 1u);
  (void)poll_out(2u);
  chunk(1u, 2u);
  (void)poll_out(2u);
  d.flash_broken = true;
  chunk(1u, 3u);
  CHECK(fm_client_state(&d.client) == FM_STATE_DOWNLOADING && d.client.next_chunk == 3u);
  d.flash_broken = false;
  chunk(1u, 3u);
  d.flash_broken = true;
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_WITHDRAW));
}

static void test_flash_fails_later(void) {
  setup();
  d.tensors[1] = (fm_tensor_t){"b", B, false, NULL, NULL, &tensor_flash_io};
  d.steps_wanted = 1000u;
  connect_link();
  welcome(1u);
  plan(1u);
  (void)poll_out(2u);
  download(1u, 0u);
  for (uint32_t i = 0u; i < 20u; i++) {
    poll_once();
  }
  d.flash_broken = true; /* while sealing */
  closing(1u);
  CHECK(poll_out(20u));
  CHECK(took(FM_BODY_WITHDRAW));
  setup();
  d.tensors[1] = (fm_tensor_t){"b", B, false, NULL, NULL, &tensor_flash_io};
  until_offer(1u);
  d.flash_broken = true; /* while sending: the chunk with the tensor cannot be read */
  status(1u, FM_SLOT_STATE_GRANTED, 0u, NULL, 0u);
  for (uint32_t i = 0u; i < 10u; i++) {
    poll_once();
  }
  while (took(FM_BODY_UPDATE_CHUNK)) {
  }
  CHECK(got.type == FM_BODY_WITHDRAW);
}

static void test_progress_and_state(void) {
  start_working(100000u);
  d.now += 5000u;
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_PROGRESS));
  CHECK(got.body.progress.planned_steps == 100000u && got.body.progress.steps > 0u);
  fm_client_set_device_state(&d.client, 40u, 1u);
  CHECK(poll_out(3u));
  CHECK(took(FM_BODY_DEVICE_STATE));
  CHECK(got.body.device_state.online && got.body.device_state.battery == 40u && got.body.device_state.flags == 1u);
  fm_client_set_device_state(&d.client, 40u, 1u); /* nothing new, nothing said */
  CHECK(!poll_out(3u));
}

static void test_every_receive_piece(void) {
  for (uint32_t piece = 1u; piece < 300u; piece += 13u) {
    setup();
    d.link.in_piece = piece;
    until_offer(1u);
    CHECK(memcmp(d.base, d.model, sizeof d.model) == 0);
  }
}

static void test_init_errors(void) {
  fm_client_t client;
  setup();
  CHECK(fm_client_init(NULL, &d.config) == FM_ERR_ARGUMENT);
  CHECK(fm_client_init(&client, NULL) == FM_ERR_ARGUMENT);
  CHECK(fm_client_poll(NULL, 0u, &d.wait) == FM_ERR_ARGUMENT);
  CHECK(fm_client_poll(&d.client, 0u, NULL) == FM_ERR_ARGUMENT);
#define EXPECT(status, change)                                                                                         \
  do {                                                                                                                 \
    setup();                                                                                                           \
    change;                                                                                                            \
    CHECK(fm_client_init(&client, &d.config) == (status));                                                             \
  } while (0)
  EXPECT(FM_OK, d.config.seed = 0u);
  EXPECT(FM_ERR_ARGUMENT, d.config.device_id = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.config.device_id = "");
  EXPECT(FM_ERR_ARGUMENT, d.config.device_id = "0123456789012345678901234567890123456789012345678901234567890123");
  EXPECT(FM_ERR_ARGUMENT, d.config.link.api = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.config.app = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.config.tensors = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.config.tensor_count = 0u);
  EXPECT(FM_ERR_ARGUMENT, d.config.tensor_count = FM_MAX_TENSORS + 1u);
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].name = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].name = "");
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].name = "w");
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].name = "a name that is far too long for the table");
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].count = 0u);
  EXPECT(FM_ERR_ARGUMENT, d.tensors[1].data = NULL);
  EXPECT(FM_ERR_ARGUMENT, (d.tensors[0].local = true, d.tensors[1].local = true));
  EXPECT(FM_ERR_ARGUMENT, d.config.rx_buffer = NULL);
  EXPECT(FM_ERR_ARGUMENT, d.config.tx_buffer = NULL);
  EXPECT(FM_ERR_BUFFER, d.config.rx_buffer_size = FM_MIN_BUFFER - 1u);
  EXPECT(FM_ERR_BUFFER, d.config.tx_buffer_size = FM_MIN_BUFFER - 1u);
}

int main(void) {
  test_whole_round();
  test_next_round_reuses_the_model_it_holds();
  test_restored_model();
  test_download_resumes();
  test_wrong_chunks_change_nothing();
  test_missing_chunk_is_asked_for();
  test_serial_style_link_requests_chunks();
  test_wrong_model_crc();
  test_upload_resumes();
  test_no_slot();
  test_slot_granted_by_the_plan();
  test_full_window();
  test_partial_update();
  test_soft_deadline_without_notice();
  test_closing_before_and_without_partial();
  test_notice_before_the_first_step();
  test_no_sleep_between_training_and_offer();
  test_finish_early_from_a_step();
  test_training_fails();
  test_evaluate();
  test_evaluate_closes_early();
  test_query();
  test_query_that_the_application_cannot();
  test_query_is_complete_or_nothing();
  test_unwilling_and_withdraw();
  test_withdraw_on_its_way();
  test_welcome_of_an_earlier_connection();
  test_holding_asks_again();
  test_bad_plans();
  test_new_plan_replaces_the_job();
  test_round_over_while_away();
  test_refusals();
  test_a_held_update_does_not_slow_hello();
  test_retries_back_off();
  test_messages_out_of_place();
  test_busy_link();
  test_coverage();
  test_int8_delta();
  test_float_delta();
  test_int8_rounding();
  test_flash_tensors();
  test_flash_fails_later();
  test_progress_and_state();
  test_every_receive_piece();
  test_hello_is_repeated_while_work_goes_on();
  test_withdraw_within_a_chunk();
  test_init_errors();
  return check_report();
}
