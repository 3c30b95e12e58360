/* Sessions of a shared UDP socket that ended lately, as TCP's TIME_WAIT: a late retransmission of theirs must neither
 * open a ghost session nor go unanswered. Bounded: the oldest make room. */
#ifndef KCPSOCKET_TIMEWAIT_H
#define KCPSOCKET_TIMEWAIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

#define TIMEWAIT_MS 60000 /* as Linux's TCP_TIMEWAIT_LEN */
#define TIMEWAIT_MAX 16384

struct timewait_table;

struct timewait {          /* what is left of a session */
    const void *owner;     /* the UDP socket it used */
    struct address peer;
    uint32_t conv;
    uint32_t rcv_nxt;      /* everything below was received */
    uint32_t rcv_wnd;      /* packets */
};

struct timewait_table *timewait_new(uint64_t seed);
void timewait_free(struct timewait_table *table);

/* Remembers a session that ended at `now`. Out of memory: it is not remembered. */
void timewait_add(struct timewait_table *table, const struct timewait *session, uint64_t now);

/* The session of this owner, peer and conv if it ended less than TIMEWAIT_MS before `now`, or NULL. */
struct timewait *timewait_find(struct timewait_table *table, const void *owner, const struct address *peer,
                               uint32_t conv, uint64_t now);

/* Forgets those that ended TIMEWAIT_MS ago; returns when to call again, UINT64_MAX when none is left. */
uint64_t timewait_expire(struct timewait_table *table, uint64_t now);

/* Forgets all of an owner that goes away. */
void timewait_drop(struct timewait_table *table, const void *owner);

uint32_t timewait_count(const struct timewait_table *table);

/* Writes the answer to a datagram for an ended session: ACKs for what it had received, the peer's closing PUSH included,
 * a RESET for anything new. Returns its length in bytes, 0 for none; `out` has room for `room` bytes. */
size_t timewait_answer(struct timewait *session, const uint8_t *data, size_t length, uint8_t *out, size_t room);

#endif
