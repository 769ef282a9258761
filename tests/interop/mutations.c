/* SPDX-License-Identifier: Apache-2.0 */
/* Every small damage to the messages in the files named as arguments: every truncation, every value of every byte, and
 * every flipped bit with every part of the message still to come. The decoder must survive it all, and what it accepts
 * must hold and must be accepted by FlatBuffers' own verifier. A line for each file tells:
 *
 *   <ours> <official> <tried> <accepted> <stricter> <file>
 *
 * the verdicts on the message as it is (1: accepted), how many damaged ones were tried whole, how many of them ours
 * accepted, and how many the official verifier alone did. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message_check.h"

#define LARGEST 4096u

bool official_accepts(const uint8_t *bytes, size_t size);

typedef struct {
  unsigned tried;
  unsigned accepted;
  unsigned stricter;
} tally_t;

/* Decode from an allocation that ends where the bytes end and starts `shift` bytes before them. */
static fm_status_t check_at(const uint8_t *message, uint32_t available, uint32_t total, uint32_t shift) {
  uint8_t *room = malloc((size_t)available + shift);
  fm_status_t status;
  HOLDS(room != NULL);
  (void)memcpy(&room[shift], message, available);
  status = check_message(&room[shift], available, total);
  free(room);
  return status;
}

static bool ask_official(const uint8_t *message, uint32_t size) {
  uint8_t *room = malloc(size);
  bool accepted;
  HOLDS(room != NULL);
  (void)memcpy(room, message, size);
  accepted = official_accepts(room, size);
  free(room);
  return accepted;
}

/* The whole message: ours and the official verdict. */
static fm_status_t check_whole(const uint8_t *message, uint32_t size, uint32_t shift, tally_t *tally) {
  const fm_status_t status = check_at(message, size, size, shift);
  const bool official = ask_official(message, size);
  HOLDS((status != FM_OK) || official);
  tally->tried++;
  tally->accepted += (status == FM_OK) ? 1u : 0u;
  tally->stricter += ((status != FM_OK) && official) ? 1u : 0u;
  return status;
}

/* The first `available` bytes of a message whose verdict is known: "more" is never wrong, anything else is final. */
static void check_part(const uint8_t *message, uint32_t available, uint32_t total, uint32_t shift,
                       fm_status_t verdict) {
  const fm_status_t status = check_at(message, available, total, shift);
  HOLDS((status == FM_AGAIN) || (status == verdict));
}

static void truncate_it(const uint8_t *message, uint32_t size, tally_t *tally) {
  for (uint32_t shift = 0u; shift < 4u; shift++) {
    for (uint32_t cut = 0u; cut < size; cut++) {
      (void)check_whole(message, cut, shift, tally);
      check_part(message, cut, size, shift, FM_OK);
    }
  }
}

static void damage_it(uint8_t *message, uint32_t size, tally_t *tally) {
  for (uint32_t at = 0u; at < size; at++) {
    const uint8_t was = message[at];
    for (uint32_t change = 1u; change < 256u; change++) {
      fm_status_t verdict;
      message[at] = was ^ (uint8_t)change;
      verdict = check_whole(message, size, change % 4u, tally);
      if ((change & (change - 1u)) == 0u) { /* one bit */
        for (uint32_t available = at + 1u; available < size; available++) {
          check_part(message, available, size, available % 4u, verdict);
        }
      }
    }
    message[at] = was;
  }
}

static void try_file(const char *path) {
  static uint8_t message[LARGEST + 1u];
  tally_t as_it_is = {0};
  tally_t damaged = {0};
  FILE *file = fopen(path, "rb");
  HOLDS(file != NULL);
  const uint32_t size = (uint32_t)fread(message, 1u, sizeof message, file);
  HOLDS((fclose(file) == 0) && (size <= LARGEST));
  if (check_whole(message, size, 0u, &as_it_is) == FM_OK) {
    truncate_it(message, size, &damaged);
    damage_it(message, size, &damaged);
  }
  (void)printf("%u %u %u %u %u %s\n", as_it_is.accepted, as_it_is.accepted + as_it_is.stricter, damaged.tried,
               damaged.accepted, damaged.stricter, path);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    try_file(argv[i]);
  }
  return 0;
}
