#include "wheel.h"

#include <stddef.h>
#include <string.h>

void wheel_init(struct wheel *wheel, uint64_t now)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->now = now;
}

bool timer_armed(const struct timer *timer)
{
    return timer->link != NULL;
}

/* The level whose slots tell `deadline` from now: that of the highest base-64 digit in which the two differ. */
static unsigned level_of(const struct wheel *wheel, uint64_t deadline)
{
    uint64_t differing = (wheel->now ^ deadline) | 1;
    unsigned level = (63 - (unsigned)__builtin_clzll(differing)) / 6;
    return level < WHEEL_LEVELS ? level : WHEEL_LEVELS - 1;
}

static unsigned slot_of(uint64_t time, unsigned level)
{
    return time >> 6 * level & (WHEEL_SLOTS - 1);
}

void wheel_disarm(struct wheel *wheel, struct timer *timer)
{
    if (!timer_armed(timer))
        return;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->link = NULL;
    if (!wheel->slots[timer->level][timer->slot])
        wheel->used[timer->level] &= ~(1ull << timer->slot);
}

void wheel_arm(struct wheel *wheel, struct timer *timer, uint64_t deadline)
{
    wheel_disarm(wheel, timer);
    /* What is due already waits in the slot of the present, which wheel_expire empties first. */
    if (deadline < wheel->now)
        deadline = wheel->now;
    uint64_t place = deadline;
    unsigned level = level_of(wheel, place);
    if (level == WHEEL_LEVELS - 1) { /* beyond the horizon: the farthest slot that comes up before a whole turn */
        uint64_t horizon = wheel->now + ((WHEEL_SLOTS - 1ull) << 6 * level);
        if (place > horizon)
            place = horizon;
    }
    timer->deadline = deadline;
    timer->level = (uint8_t)level;
    timer->slot = (uint8_t)slot_of(place, level);
    struct timer **head = &wheel->slots[level][timer->slot];
    timer->next = *head;
    if (*head)
        (*head)->link = &timer->next;
    timer->link = head;
    *head = timer;
    wheel->used[level] |= 1ull << timer->slot;
}

/* When the earliest slot in use of `level` comes up, UINT64_MAX if none is. */
static uint64_t level_next(const struct wheel *wheel, unsigned level)
{
    uint64_t used = wheel->used[level];
    if (!used)
        return UINT64_MAX;
    unsigned current = slot_of(wheel->now, level);
    uint64_t turned = used >> current | (current ? used << (WHEEL_SLOTS - current) : 0);
    uint64_t start = (wheel->now >> 6 * level) + (unsigned)__builtin_ctzll(turned);
    uint64_t time = start << 6 * level;
    return time < wheel->now ? wheel->now : time;
}

uint64_t wheel_next(const struct wheel *wheel)
{
    uint64_t next = UINT64_MAX;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t time = level_next(wheel, level);
        if (time < next)
            next = time;
    }
    return next;
}

struct timer *wheel_expire(struct wheel *wheel, uint64_t now)
{
    for (;;) {
        uint64_t next = wheel_next(wheel);
        if (next > now) {
            if (now > wheel->now)
                wheel->now = now;
            return NULL;
        }
        wheel->now = next;
        /* Higher levels first: their timers may belong into the present's slot below. */
        for (unsigned level = WHEEL_LEVELS; level-- > 1;) {
            struct timer **head = &wheel->slots[level][slot_of(next, level)];
            while (*head && level_next(wheel, level) == next) {
                struct timer *timer = *head;
                uint64_t deadline = timer->deadline;
                wheel_disarm(wheel, timer);
                if (deadline <= next)
                    return timer;
                wheel_arm(wheel, timer, deadline);
                if (timer->level == level)
                    break; /* beyond the horizon still */
            }
        }
        struct timer *due = wheel->slots[0][slot_of(next, 0)];
        if (due) {
            wheel_disarm(wheel, due);
            return due;
        }
    }
}
