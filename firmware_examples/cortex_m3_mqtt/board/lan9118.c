/* SPDX-License-Identifier: Apache-2.0 */
/* Registers and bits as in SMSC's LAN9118 data sheet, chapter 5. */
#include "lan9118.h"

#include <string.h>

#define BASE 0x40200000u
#define REGISTER(offset) (*(volatile uint32_t *)(BASE + (offset)))

#define RX_DATA REGISTER(0x00u)
#define TX_DATA REGISTER(0x20u)
#define RX_STATUS REGISTER(0x40u)
#define ID_REV REGISTER(0x50u)
#define IRQ_CFG REGISTER(0x54u)
#define INT_STS REGISTER(0x58u)
#define INT_EN REGISTER(0x5Cu)
#define BYTE_TEST REGISTER(0x64u)
#define FIFO_INT REGISTER(0x68u)
#define RX_CFG REGISTER(0x6Cu)
#define TX_CFG REGISTER(0x70u)
#define HW_CFG REGISTER(0x74u)
#define RX_DP_CTRL REGISTER(0x78u)
#define RX_FIFO_INF REGISTER(0x7Cu)
#define TX_FIFO_INF REGISTER(0x80u)
#define MAC_CSR_CMD REGISTER(0xA4u)
#define MAC_CSR_DATA REGISTER(0xA8u)

#define BYTE_ORDER 0x87654321u
#define HW_SOFT_RESET 0x1u
#define HW_MUST_BE_ONE 0x00100000u
#define HW_TX_FIFO_5K 0x00050000u
#define IRQ_OFF 0x011u /* active high, push-pull */
#define IRQ_ON 0x111u
#define INT_RX_STATUS 0x8u
#define TX_ON 0x6u /* on; unread statuses are no error */
#define RX_FORWARD 0x80000000u
#define RX_ERROR 0x8000u /* of a status */
#define CRC_SIZE 4u
#define MAC_BUSY 0x80000000u
#define MAC_CR 1u
#define MAC_ADDRESS_HIGH 2u
#define MAC_ADDRESS_LOW 3u
#define MAC_ON 0x0010000Cu /* full duplex, transmitter, receiver */
#define TX_WHOLE 0x3000u   /* first and last piece of a frame */
#define TRIES 1000000u
#define WORD 4u

static void mac_write(uint32_t index, uint32_t value) {
  MAC_CSR_DATA = value;
  MAC_CSR_CMD = MAC_BUSY | index;
  for (uint32_t i = 0u; (i < TRIES) && ((MAC_CSR_CMD & MAC_BUSY) != 0u); i++) {
    /* the MAC has a clock of its own */
  }
}

static uint32_t words(uint32_t size) { return (size + WORD - 1u) / WORD; }

bool lan9118_start(const uint8_t address[6]) {
  const bool there = BYTE_TEST == BYTE_ORDER;
  if (there) {
    HW_CFG = HW_SOFT_RESET;
    for (uint32_t i = 0u; (i < TRIES) && ((HW_CFG & HW_SOFT_RESET) != 0u); i++) {
      /* the controller ends it */
    }
    HW_CFG = HW_MUST_BE_ONE | HW_TX_FIFO_5K;
    INT_EN = 0u;
    IRQ_CFG = IRQ_OFF;
    INT_STS = 0xFFFFFFFFu;
    FIFO_INT = 0u; /* an interrupt for the first frame */
    RX_CFG = 0u;
    TX_CFG = TX_ON;
    mac_write(MAC_ADDRESS_LOW, (uint32_t)address[0] | ((uint32_t)address[1] << 8) | ((uint32_t)address[2] << 16) |
                                   ((uint32_t)address[3] << 24));
    mac_write(MAC_ADDRESS_HIGH, (uint32_t)address[4] | ((uint32_t)address[5] << 8));
    mac_write(MAC_CR, MAC_ON);
    INT_EN = INT_RX_STATUS;
  }
  return there;
}

uint32_t lan9118_next(void) {
  uint32_t size = 0u;
  while ((size == 0u) && ((RX_FIFO_INF & 0x00FF0000u) != 0u)) {
    const uint32_t status = RX_STATUS;
    const uint32_t whole = (status >> 16) & 0x3FFFu; /* with the CRC */
    if (((status & RX_ERROR) != 0u) || (whole <= CRC_SIZE) || (whole > (LAN9118_MOST + CRC_SIZE))) {
      lan9118_drop((whole > CRC_SIZE) ? (whole - CRC_SIZE) : 0u);
    } else {
      size = whole - CRC_SIZE;
    }
  }
  return size;
}

void lan9118_take(uint8_t *out, uint32_t size) {
  for (uint32_t at = 0u; at < size; at += WORD) {
    const uint32_t word = RX_DATA;
    const uint32_t left = size - at;
    (void)memcpy(&out[at], &word, (left < WORD) ? left : WORD);
  }
  for (uint32_t i = words(size); i < words(size + CRC_SIZE); i++) {
    (void)RX_DATA;
  }
}

void lan9118_drop(uint32_t size) {
  for (uint32_t i = 0u; i < words(size + CRC_SIZE); i++) {
    (void)RX_DATA;
  }
}

bool lan9118_send(const uint8_t *frame, uint32_t size) {
  const bool room = (TX_FIFO_INF & 0xFFFFu) >= (size + (3u * WORD));
  if (room) {
    TX_DATA = TX_WHOLE | size;
    TX_DATA = (size << 16) | size; /* the tag in the upper half only comes back in the status */
    for (uint32_t at = 0u; at < size; at += WORD) {
      const uint32_t left = size - at;
      uint32_t word = 0u;
      (void)memcpy(&word, &frame[at], (left < WORD) ? left : WORD);
      TX_DATA = word;
    }
  }
  return room;
}

void lan9118_listen(void) { IRQ_CFG = IRQ_ON; }

/* A frame that arrives from here on sets the status again, so none is missed before lan9118_listen(). */
void lan9118_quiet(void) {
  IRQ_CFG = IRQ_OFF;
  INT_STS = INT_RX_STATUS;
}
