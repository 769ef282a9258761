/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a message, whole and with its end still to come. */
#include "fedmote/fm_crc32.h"
#include "message_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint32_t total = (uint32_t)size;
  const fm_status_t verdict = check_message(data, total, total);
  const uint32_t available = fm_crc32(0u, data, total) % (total + 1u);
  uint8_t *part = malloc((size_t)available + 1u);
  fm_status_t status;
  HOLDS(part != NULL);
  (void)memcpy(&part[1], data, available); /* at an odd address */
  status = check_message(&part[1], available, total);
  HOLDS((status == FM_AGAIN) || (status == verdict));
  free(part);
  return 0;
}
