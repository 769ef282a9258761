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

/* Return the bytes of the next received frame, 0 if there is none. Damaged frames are dropped here. Take the frame, or
 * drop it. */
uint32_t lan9118_next(void);

/* Copy the frame of lan9118_next() to `out`, which has room for that many bytes. */
void lan9118_take(uint8_t *out, uint32_t size);

/* Drop the frame of lan9118_next(). */
void lan9118_drop(uint32_t size);

/* Send a frame of 14 to LAN9118_MOST bytes. False: no room now. */
bool lan9118_send(const uint8_t *frame, uint32_t size);

/* Allow the interrupt. It comes with the next frame, or at once if one arrived since lan9118_quiet(). */
void lan9118_listen(void);

/* Call from the interrupt: there are no more interrupts until lan9118_listen(). */
void lan9118_quiet(void);

#endif
