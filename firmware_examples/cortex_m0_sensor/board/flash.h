/* SPDX-License-Identifier: Apache-2.0 */
/* The nRF51's flash between __storage_start and __storage_end, as fedmote's storage. The core stops for 46 us while
 * a word is programmed and for 22 ms while a page is erased. The UART holds six bytes meanwhile. Later ones are lost,
 * and the link sends them again.
 */
#ifndef FLASH_H
#define FLASH_H

#include "fedmote/fm_keep.h"

void flash_init(fm_storage_t *storage);

#endif
