/* Loss detection, in the order of sending (as RACK, RFC 8985, does by time).
 *
 * Every transmission of a PUSH has a number, its order, and the log says which sn it carried. An ACK that names a
 * segment's last transmission, by its ts, shows that one to have arrived. (una tells nothing more: what it covers and
 * no ACK names was either sent once, before all that una doesn't cover, or can't be told from its repetition.)
 *
 * A transmission is lost once `resend` later ones have arrived: all that is needed of them is the resend-th largest
 * order, so the largest few are kept. A cursor, the log's head, walks up to that order once; what it meets
 * unacknowledged, and not sent again since, is lost. A retransmission is a transmission like any other, so its loss is
 * found the same way. Cost per packet: O(1), amortised.
 *
 * Where a path reorders, being overtaken proves nothing yet: the cursor stops at a transmission that has not been so
 * for as long as kcp_reorder.c has learnt to tolerate. Those after it were overtaken no sooner, so one timer does for
 * all. */
#include "kcp_internal.h"

void kcp_note_arrival(struct kcp *kcp, uint32_t order)
{
    uint32_t limit = kcp->settings.resend;
    if (limit < 1)
        limit = 1; /* early retransmission looks at the largest, even with resend 0 */
    if (limit > KCP_RESEND_MAX)
        limit = KCP_RESEND_MAX;
    uint32_t *top = kcp->top;
    if (kcp->top_count < limit)
        kcp->top_count++;
    else if (wire_diff(order, top[limit - 1]) <= 0)
        return;
    uint32_t i = kcp->top_count - 1;
    for (; i > 0 && wire_diff(order, top[i - 1]) > 0; i--)
        top[i] = top[i - 1];
    top[i] = order;
}

uint32_t kcp_log_transmission(struct kcp *kcp, uint32_t sn)
{
    struct number_queue *log = &kcp->log;
    uint32_t limit = 2 * kcp->snd_size; /* a retransmission for each segment before any is forgotten */
    if (number_queue_push(log, sn, limit))
        return log->tail - 1;
    /* The oldest is forgotten: if it is lost, its RTO will tell. */
    log->head++;
    if (log->size > 0)
        *number_at(log, log->tail) = sn;
    else
        log->head = log->tail + 1;
    return log->tail++;
}

void kcp_log_clear(struct kcp *kcp)
{
    number_queue_drain(&kcp->log);
    number_queue_drain(&kcp->lost);
    kcp->top_count = 0;
    kcp->watch = false;
    kcp->passed_count = 0;
}

/* Queues `sn` to be sent again by the next flush. Out of memory it stays unmarked, for its RTO to find. */
static void mark(struct kcp *kcp, uint32_t sn, enum kcp_lost why)
{
    struct send_slot *slot = send_at(kcp, sn);
    if (!slot->lost && number_queue_push(&kcp->lost, sn, 2 * KCP_RING_MAX)) {
        slot->lost = why & 3;
        slot->sure = why != KCP_LOST_TIMEOUT;
        kcp->bdp.lost++;
    }
}

/* True when the transmission of this order was its segment's last, and may still be found overtaken. */
static bool suspect(const struct kcp *kcp, uint32_t order)
{
    uint32_t sn = *number_at(&kcp->log, order);
    if (wire_diff(sn, kcp->snd_una) < 0)
        return false;
    const struct send_slot *slot = send_at(kcp, sn);
    return !slot->acked && !slot->lost && slot->order == order && slot->fast < KCP_FAST_LIMIT;
}

/* Moves the cursor to the next suspect before `order`; false if there is none. */
static bool next_suspect(struct kcp *kcp, uint32_t order)
{
    for (struct number_queue *log = &kcp->log; wire_diff(log->head, order) < 0; log->head++) {
        if (suspect(kcp, log->head))
            return true;
    }
    return false;
}

/* Has a flush look at the suspect under the cursor, at `time`. */
static void watch(struct kcp *kcp, uint32_t time)
{
    kcp->watch = true;
    kcp->watched = kcp->log.head;
    kcp->watch_ts = time;
}

/* ms: when the suspect under the cursor is lost, overtaken `resend` times or (`early`) once. */
static uint32_t due(const struct kcp *kcp, bool early)
{
    uint32_t order = kcp->log.head;
    return kcp_due(kcp, order, send_at(kcp, *number_at(&kcp->log, order))->ts, early);
}

/* Moves the cursor up to `order`, and marks. False when it stopped before one that is not due. */
static bool walk(struct kcp *kcp, uint32_t order, enum kcp_lost why, uint32_t now)
{
    while (next_suspect(kcp, order)) {
        uint32_t time = due(kcp, why == KCP_LOST_EARLY);
        if (wire_diff(now, time) < 0) {
            watch(kcp, time);
            return false;
        }
        mark(kcp, *number_at(&kcp->log, kcp->log.head), why);
        kcp->log.head++;
    }
    return true;
}

/* `resend` of the settings, as far as arrivals are kept. */
static uint32_t resend_count(const struct kcp *kcp)
{
    return kcp->settings.resend < KCP_RESEND_MAX ? kcp->settings.resend : KCP_RESEND_MAX;
}

/* As far as `resend` allows; true if the cursor got there. */
static bool walk_overtaken(struct kcp *kcp, uint32_t now)
{
    uint32_t resend = resend_count(kcp);
    if (resend == 0 || kcp->top_count < resend)
        return true;
    return walk(kcp, kcp->top[resend - 1], KCP_LOST_FAST, now);
}

void kcp_find_overtaken(struct kcp *kcp, uint32_t now)
{
    kcp_reorder_age(kcp, now);
    if (kcp->top_count == 0)
        return;
    kcp_passed(kcp, kcp->top[0], now);
    bool watched = kcp->watch;
    kcp->watch = false;
    if (!walk_overtaken(kcp, now))
        return;
    /* Does anything overtaken remain? Then a flush looks after it, unless more arrivals decide before. */
    if (!next_suspect(kcp, kcp->top[0]))
        return;
    if (watched && kcp->watched == kcp->log.head)
        kcp->watch = true;
    else
        watch(kcp, due(kcp, true));
}

void kcp_find_late(struct kcp *kcp, bool nothing_new, uint32_t now)
{
    if (!kcp->watch)
        return;
    kcp->watch = false;
    if (!walk_overtaken(kcp, now) || !next_suspect(kcp, kcp->top[0]))
        return;
    if (nothing_new)
        walk(kcp, kcp->top[0], KCP_LOST_EARLY, now);
    else
        watch(kcp, now + kcp->settings.interval);
}

/* Has `slot` been overtaken `resend` times? It was given time, as the path reorders; but it is no time-out, at which to
 * send less and less often, while others get through. */
static bool overtaken(const struct kcp *kcp, const struct send_slot *slot)
{
    uint32_t resend = resend_count(kcp);
    return resend > 0 && kcp->top_count >= resend && wire_diff(slot->order, kcp->top[resend - 1]) < 0 &&
           slot->fast < KCP_FAST_LIMIT;
}

/* Puts off `*due`, when the RTO of `slot` passes, until the ACK of what was sent next should have come, if that was
 * soon after. It tells more than a time-out does: una if only an ACK was lost, or else that `slot` was overtaken. False
 * when nothing was sent soon after, so that the lack of its own ACK is all that says that `slot` was lost. */
static bool await_next(const struct kcp *kcp, const struct send_slot *slot, uint32_t *due)
{
    const struct number_queue *log = &kcp->log;
    uint32_t order = slot->order + 1, srtt = (uint32_t)kcp->srtt8 / 8;
    if (!kcp->measured || wire_diff(order, log->head) < 0 || wire_diff(order, log->tail) >= 0)
        return false;
    uint32_t sn = *number_at(log, order);
    if (wire_diff(sn, kcp->snd_una) < 0)
        return true;
    const struct send_slot *next = send_at(kcp, sn);
    if (next->acked)
        return true;
    if (next->ts - slot->ts > srtt / 4)
        return false;
    uint32_t time = next->ts + srtt + kcp->settings.interval;
    if (wire_diff(time, *due) > 0)
        *due = time;
    return true;
}

void kcp_find_timeouts(struct kcp *kcp, uint32_t now)
{
    if (kcp->in_flight == 0 || wire_diff(now, kcp->rto_bound) < 0)
        return;
    uint32_t bound = now + KCP_RTO_MAX;
    uint32_t least = (uint32_t)kcp->srtt8 / 8 + kcp->settings.interval;
    for (uint32_t sn = kcp->snd_una; sn != kcp->snd_nxt; sn++) {
        struct send_slot *slot = send_at(kcp, sn);
        if (slot->acked)
            continue;
        uint32_t due = slot->resendts;
        if (wire_diff(slot->ts + least, due) > 0)
            due = slot->ts + least; /* round trips have become longer since */
        bool sure = await_next(kcp, slot, &due);
        if (wire_diff(now, due) >= 0) {
            mark(kcp, sn, overtaken(kcp, slot) ? KCP_LOST_FAST : KCP_LOST_TIMEOUT);
            slot->sure |= sure;
            if (slot->lost)
                continue; /* its transmission, in this flush, lowers the bound again */
            due = now + kcp->settings.interval;
        }
        if (wire_diff(due, bound) < 0)
            bound = due;
    }
    kcp->rto_bound = bound;
}

void kcp_put_off_timeouts(struct kcp *kcp, uint32_t now)
{
    uint32_t bound = now + kcp->settings.interval;
    if (wire_diff(kcp->rto_bound, bound) < 0)
        kcp->rto_bound = bound;
}

/* RFC 5681, counted in packets acknowledged rather than in ACKs (RFC 3465): a peer sends few. kcp-go's window
 * differs in that it begins beyond slow start and halves again for each loss of a round trip. */
void kcp_cwnd_grow(struct kcp *kcp, uint32_t acked)
{
    uint32_t remote = kcp->rmt_edge - kcp->snd_una;
    if (kcp->settings.nc || kcp->cwnd >= remote)
        return;
    if (kcp->cwnd < kcp->ssthresh) {
        uint32_t below = kcp->ssthresh - kcp->cwnd;
        kcp->cwnd += acked < below ? acked : below;
    } else {
        kcp->cwnd_credit += acked;
        if (kcp->cwnd_credit >= kcp->cwnd) {
            kcp->cwnd_credit -= kcp->cwnd;
            kcp->cwnd++;
        }
    }
    if (kcp->cwnd > remote)
        kcp->cwnd = remote;
}

/* Halves the threshold, once for all that was in flight together. False if that has been done. */
static bool halve(struct kcp *kcp, uint32_t window)
{
    if (kcp->cwnd_reduced && wire_diff(kcp->snd_una, kcp->cwnd_recover) < 0)
        return false;
    kcp->cwnd_reduced = true;
    kcp->cwnd_recover = kcp->snd_nxt;
    kcp->cwnd_credit = 0;
    kcp->ssthresh = window / 2 > KCP_SSTHRESH_MIN ? window / 2 : KCP_SSTHRESH_MIN;
    return true;
}

void kcp_cwnd_overtaken(struct kcp *kcp)
{
    if (!kcp->settings.nc && halve(kcp, kcp->snd_nxt - kcp->snd_una))
        kcp->cwnd = kcp->ssthresh;
}

void kcp_cwnd_timeout(struct kcp *kcp)
{
    if (kcp->settings.nc)
        return;
    halve(kcp, kcp_window(kcp));
    kcp->cwnd = 1;
}
