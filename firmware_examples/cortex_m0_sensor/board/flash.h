/* SPDX-License-Identifier: Apache-2.0 */
/* The nRF51's flash between __storage_start and __storage_end, as fedmote's storage. The core stands still for 46 us a
 * word programmed and 22 ms a page erased; what the UART receives meanwhile beyond six bytes is lost, and sent again.
 */
#ifndef FLASH_H
#define FLASH_H

#include "fedmote/fm_keep.h"

void flash_init(fm_storage_t *storage);

#endif
