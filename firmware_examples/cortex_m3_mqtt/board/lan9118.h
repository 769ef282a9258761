/* SPDX-License-Identifier: Apache-2.0 */
/* SMSC LAN9118 and LAN9220 Ethernet controllers: frames in and out, by the processor. One device, so there is no
 * handle. A frame goes from its destination address to the end of its payload; the controller adds and checks the CRC.
 */
#ifndef LAN9118_H
#define LAN9118_H

#include <stdbool.h>
#include <stdint.h>

#define LAN9118_MOST 1514u /* bytes of a frame */

/* Reset, set the address, receive frames for it and broadcasts. False: there is no such controller. */
bool lan9118_start(const uint8_t address[6]);

/* Bytes of the next frame received, 0: none. Damaged ones are dropped here. It must be taken, or dropped. */
uint32_t lan9118_next(void);

/* Copy out the frame that lan9118_next() told of; `out` has room for that many bytes. */
void lan9118_take(uint8_t *out, uint32_t size);

/* Throw it away. */
void lan9118_drop(uint32_t size);

/* Send a frame of 14 to LAN9118_MOST bytes. False: no room now. */
bool lan9118_send(const uint8_t *frame, uint32_t size);

/* Let the interrupt come when a frame does, or did since lan9118_quiet(). */
void lan9118_listen(void);

/* From the interrupt: no more of them until lan9118_listen(). */
void lan9118_quiet(void);

#endif
