/* How late a transmission may be and not be lost (the reordering window of RACK, RFC 8985).
 *
 * Lateness is counted in two ways: from when a transmission was found to be overtaken, and from when the usual round
 * trip after it was over. Of each, the most that was seen lately is tolerated, and what has exceeded either is lost.
 * The former alone would wait needlessly where little is sent, since what overtakes comes late itself; the latter alone
 * would take a queue on the way that drains for reordering.
 *
 * On a path that keeps the order nothing is ever late, so nothing is tolerated, and what was overtaken is sent again at
 * once. What teaches otherwise:
 *
 *  - a segment sent once that was overtaken, and then acknowledged;
 *  - a segment sent again because it was overtaken, and then acknowledged with the ts of its earlier transmission, or
 *    sooner than any round trip can take (Eifel, RFC 3522).
 *
 * una is the usual witness, since receivers leave out ACKs that una covers; but only for the segment that it waited
 * for: of those behind, ACKs may just have been lost. The una that came at once may have been lost as well, so what it
 * teaches goes only some way beyond what is known.
 *
 * A packet that error correction rebuilt is acknowledged as late as its group was complete, which is no sign of
 * reordering: with FEC, a quarter of a round trip is the most that is tolerated (RACK's own beginning), else a whole. */
#include "kcp_internal.h"

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t srtt(const struct kcp *kcp)
{
    return (uint32_t)kcp->srtt8 / 8;
}

/* ms: what to begin with, where nothing more is known than that a path does reorder, or may. */
static uint32_t grace(const struct kcp *kcp)
{
    return smaller(srtt(kcp) / 8, kcp->settings.interval);
}

/* --- since when? --- */

void kcp_passed(struct kcp *kcp, uint32_t order, uint32_t now)
{
    struct overtaking *passed = kcp->passed;
    uint32_t count = kcp->passed_count;
    if (count > 0 && wire_diff(order, passed[count - 1].order) <= 0)
        return;
    /* Together they reach back a round trip, the most that is tolerated. */
    if (count > 0 && now - passed[count - 1].ts <= srtt(kcp) / KCP_PASSED) {
        passed[count - 1].order = order;
        return;
    }
    if (count == KCP_PASSED)
        memmove(passed, passed + 1, --count * sizeof(*passed));
    passed[count] = (struct overtaking){.order = order, .ts = now};
    kcp->passed_count = count + 1;
}

/* Had this transmission been overtaken, when losses were last looked for? */
static bool overtaken(const struct kcp *kcp, uint32_t order)
{
    return kcp->passed_count > 0 && wire_diff(order, kcp->passed[kcp->passed_count - 1].order) < 0;
}

/* ms: when it was. */
static uint32_t overtaken_ts(const struct kcp *kcp, uint32_t order)
{
    uint32_t i = kcp->passed_count - 1;
    while (i > 0 && wire_diff(order, kcp->passed[i - 1].order) < 0)
        i--;
    return kcp->passed[i].ts;
}

uint32_t kcp_due(const struct kcp *kcp, uint32_t order, uint32_t ts, bool early)
{
    uint32_t passed = overtaken_ts(kcp, order);
    if (kcp->reorder.passed == 0) {
        uint32_t patience = kcp->loss_seen ? 0 : grace(kcp);
        /* Two packets that changed places are not worth sending one of them again. */
        return passed + (early && patience == 0 ? 1 : patience);
    }
    uint32_t by_passed = passed + kcp->reorder.passed;
    uint32_t by_trip = ts + srtt(kcp) + kcp->reorder.trip;
    return wire_diff(by_trip, by_passed) < 0 ? by_trip : by_passed;
}

/* --- learning --- */

/* A lateness of `late` ms calls for more tolerance than that. Unless `proven` it may have been less. */
static void tolerate(const struct kcp *kcp, uint32_t late, bool proven, uint32_t *seen, uint32_t *tolerated)
{
    uint32_t needed = late + 1;
    uint32_t known = larger(*tolerated, grace(kcp) + 1);
    if (*tolerated == 0)
        needed = larger(needed, known); /* the first is hardly the worst */
    if (!proven)
        needed = smaller(needed, known + known / 4 + 1);
    needed = smaller(needed, larger(kcp->settings.fec ? srtt(kcp) / 4 : srtt(kcp), 1));
    *seen = larger(*seen, needed);
    *tolerated = larger(*tolerated, needed);
}

/* An overtaken transmission of this order has arrived: only now, if `proven`, else at the latest. */
static void learn(struct kcp *kcp, uint32_t order, uint32_t ts, bool proven, uint32_t now)
{
    int32_t beyond = wire_diff(now, ts + srtt(kcp));
    tolerate(kcp, now - overtaken_ts(kcp, order), proven, &kcp->reorder_seen.passed, &kcp->reorder.passed);
    tolerate(kcp, beyond > 0 ? (uint32_t)beyond : 0, proven, &kcp->reorder_seen.trip, &kcp->reorder.trip);
    kcp_rto_update(kcp);
}

/* Was the last transmission made because the one before had been overtaken? */
static bool repeated(const struct kcp *kcp, const struct send_slot *slot)
{
    return (slot->cause == KCP_LOST_FAST || slot->cause == KCP_LOST_EARLY) && overtaken(kcp, slot->previous);
}

void kcp_learn_ack(struct kcp *kcp, const struct send_slot *slot, uint32_t ts, uint32_t now)
{
    if (slot->ts == ts) {
        if (overtaken(kcp, slot->order))
            learn(kcp, slot->order, ts, true, now);
        kcp->loss_seen |= slot->xmit > 1;
    } else if (slot->xmit > 1 && wire_diff(ts, slot->ts) < 0) {
        kcp->counters.spurious_segs++;
        if (repeated(kcp, slot))
            learn(kcp, slot->previous, ts, true, now);
    }
}

void kcp_learn_una(struct kcp *kcp, const struct send_slot *slot, bool first, uint32_t now)
{
    if (slot->xmit == 1) {
        if (first && overtaken(kcp, slot->order))
            learn(kcp, slot->order, slot->ts, false, now);
        return;
    }
    /* Three quarters, since the shortest round trip may have yet to be seen. */
    uint32_t least = kcp->trip_min[0] < kcp->trip_min[1] ? kcp->trip_min[0] : kcp->trip_min[1];
    if (least == UINT32_MAX || now - slot->ts >= least - least / 4) {
        kcp->loss_seen |= first;
        return;
    }
    kcp->counters.spurious_segs++;
    if (first && repeated(kcp, slot))
        learn(kcp, slot->previous, slot->ts - kcp->rto, false, now); /* about: its own ts isn't kept */
}

void kcp_learn_trip(struct kcp *kcp, uint32_t rtt)
{
    if (rtt < kcp->trip_min[0])
        kcp->trip_min[0] = rtt;
}

void kcp_reorder_age(struct kcp *kcp, uint32_t now)
{
    uint32_t period = KCP_REORDER_TRIPS * srtt(kcp);
    if (period < KCP_REORDER_MS)
        period = KCP_REORDER_MS;
    if (now - kcp->period_ts < period)
        return;
    kcp->period_ts = now;
    kcp->reorder.passed = larger(kcp->reorder.passed / 2, kcp->reorder_seen.passed);
    kcp->reorder.trip = larger(kcp->reorder.trip / 2, kcp->reorder_seen.trip);
    kcp->reorder_seen = (struct lateness){.passed = 0, .trip = 0};
    kcp->trip_min[1] = kcp->trip_min[0];
    kcp->trip_min[0] = UINT32_MAX;
}
