/* Timers of one engine: a hierarchical wheel with a resolution of 1 ms.
 *
 * Arming, moving and disarming are O(1) whatever the number of timers, and a timer that is armed costs nothing until it
 * is due. Level k has 64 slots of 64^k ms each; a timer sits on the level where its distance from now lies, and moves
 * down as its time comes near. Bitmaps of the slots in use find the next deadline without a walk.
 * (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987.) */
#ifndef KCPSOCKET_WHEEL_H
#define KCPSOCKET_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WHEEL_LEVELS = 5, /* 64^5 ms: 12 days; later deadlines wait on the top level and are looked at again */
    WHEEL_SLOTS = 64,
};

struct timer {
    struct timer *next, **link; /* the slot's chain; link NULL: not armed */
    uint64_t deadline;          /* ms on the engine's clock */
    uint8_t level, slot;        /* where it sits */
};

struct wheel {
    uint64_t now;                                    /* everything due up to and including this has been taken */
    uint64_t used[WHEEL_LEVELS];                     /* bit s: slot s of that level has timers */
    struct timer *slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *wheel, uint64_t now);

/* (Re)arms `timer` for `deadline`; one in the past is due at the next wheel_expire. */
void wheel_arm(struct wheel *wheel, struct timer *timer, uint64_t deadline);
void wheel_disarm(struct wheel *wheel, struct timer *timer);

bool timer_armed(const struct timer *timer);

/* Moves the wheel to `now` and takes off one timer that is due, disarmed; NULL when none is left. Call until NULL. */
struct timer *wheel_expire(struct wheel *wheel, uint64_t now);

/* The time at which wheel_expire should be called next: at most the earliest deadline (it can be earlier, when timers
 * have to move down a level). UINT64_MAX: no timer is armed. */
uint64_t wheel_next(const struct wheel *wheel);

#endif
