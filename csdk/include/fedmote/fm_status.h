/* SPDX-License-Identifier: Apache-2.0 */
/* The results. Every function that can fail returns one of these. */
#ifndef FM_STATUS_H
#define FM_STATUS_H

typedef enum {
  FM_OK = 0,
  FM_AGAIN,           /* not now: call again later; nothing was consumed */
  FM_DONE,            /* a cooperative step: this was the last one */
  FM_ERR_ARGUMENT,    /* a NULL or out-of-range argument: a bug in the caller */
  FM_ERR_BUFFER,      /* a buffer handed in is too small */
  FM_ERR_MESSAGE,     /* the bytes are not a valid message */
  FM_ERR_UNSUPPORTED, /* valid, but not compiled in or not known to this version */
  FM_ERR_LINK,        /* the link or the stream below it broke; it reconnects by itself */
  FM_ERR_REFUSED,     /* the broker or the server refused for good; see the counters and the last refusal */
  FM_ERR_STORAGE,     /* a tensor's read or write function failed */
  FM_ERR_TRAINING     /* the application's training step failed */
} fm_status_t;

#endif
