/* SPDX-License-Identifier: Apache-2.0 */
/* Compile-time limits. Override any of them with -D, or name a header of your own in FM_CONFIG_FILE. */
#ifndef FM_CONFIG_H
#define FM_CONFIG_H

#ifdef FM_CONFIG_FILE
#include FM_CONFIG_FILE
#endif

/* Longest device id, in bytes without the terminator. Sizes topics, not structs. */
#ifndef FM_MAX_DEVICE_ID
#define FM_MAX_DEVICE_ID 63
#endif

/* Most tensors of one model, shared and local together: 1 to 4096. Coverage is a 32-bit mask: in
 * a library for more than 32 tensors, its bit 31 stands for tensor 31 and all after it. An update takes 4 bytes of
 * stack for each of the most tensors. */
#ifndef FM_MAX_TENSORS
#define FM_MAX_TENSORS 16
#endif

/* Longest name of a tensor, in bytes without the terminator. Sizes nothing. */
#ifndef FM_MAX_TENSOR_NAME
#define FM_MAX_TENSOR_NAME 31
#endif

/* Smallest buffers a client accepts, in bytes. The receive buffer holds one control message whole, or the
 * head of a chunk message; the transmit buffer one control message, or the head of a chunk message. */
#ifndef FM_MIN_BUFFER
#define FM_MIN_BUFFER 256
#endif

/* Elements (or bytes) of CRC, encoding and copying done in one call of fm_client_poll. */
#ifndef FM_POLL_BUDGET
#define FM_POLL_BUDGET 1024
#endif

/* Most received QoS 1 messages whose acknowledgement has not been sent yet. */
#ifndef FM_MQTT_PENDING_ACKS
#define FM_MQTT_PENDING_ACKS 8
#endif

/* Payload bytes of one serial frame: 16 to 240. */
#ifndef FM_SERIAL_PAYLOAD
#define FM_SERIAL_PAYLOAD 240
#endif

/* Most serial frames in flight, unacknowledged: 1 to 7. */
#ifndef FM_SERIAL_WINDOW
#define FM_SERIAL_WINDOW 4
#endif

/* 1: the int8 encoding is compiled in (needs floating point); 0: left out. */
#ifndef FM_WITH_INT8
#define FM_WITH_INT8 1
#endif

/* 1: the task query is compiled in (150 bytes of flash on a Cortex-M0+, 136 of RAM); 0: left out. The size of
 * fm_client_t depends on it, so application and library must be built with the same value. */
#ifndef FM_WITH_QUERY
#define FM_WITH_QUERY 0
#endif

#if (FM_MAX_TENSORS < 1) || (FM_MAX_TENSORS > 4096)
#error "FM_MAX_TENSORS must be 1 to 4096"
#endif
#if (FM_MAX_TENSOR_NAME < 1) || (FM_MAX_TENSOR_NAME > 255)
#error "FM_MAX_TENSOR_NAME must be 1 to 255"
#endif
#if (FM_MAX_DEVICE_ID < 1) || (FM_MAX_DEVICE_ID > 63)
#error "FM_MAX_DEVICE_ID must be 1 to 63"
#endif
#if FM_MIN_BUFFER < 256
#error "FM_MIN_BUFFER must be at least 256, the size of the largest control message"
#endif
#if FM_POLL_BUDGET < 1
#error "FM_POLL_BUDGET must be at least 1"
#endif
#if (FM_MQTT_PENDING_ACKS < 1) || (FM_MQTT_PENDING_ACKS > 255)
#error "FM_MQTT_PENDING_ACKS must be 1 to 255"
#endif

#endif
