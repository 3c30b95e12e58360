/* Loss detection, in the order of sending (as RACK, RFC 8985, does by time).
 *
 * Every transmission of a PUSH has a number, its order, and the log says which sn it carried. An ACK that names a
 * segment's last transmission, by its ts, shows that one to have arrived. (una tells nothing more: what it covers and
 * no ACK names was either sent once, before all that una doesn't cover, or can't be told from its repetition.)
 *
 * A transmission is lost once `resend` later ones have arrived: all that is needed of them is the resend-th largest
 * order, so the largest few are kept. A cursor, the log's head, walks up to that order once; what it meets
 * unacknowledged, and not sent again since, is lost. A retransmission is a transmission like any other, so its loss is
 * found the same way. Cost per packet: O(1), amortised. */
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
    kcp->early_armed = false;
}

/* Queues `sn` to be sent again by the next flush. Out of memory it stays unmarked, for its RTO to find. */
static void mark(struct kcp *kcp, uint32_t sn, enum kcp_lost why)
{
    struct send_slot *slot = send_at(kcp, sn);
    if (!slot->lost && number_queue_push(&kcp->lost, sn, 2 * KCP_RING_MAX))
        slot->lost = why & 3;
}

/* The segment whose last transmission was of this order, if it may still be found overtaken. */
static struct send_slot *suspect(const struct kcp *kcp, uint32_t order)
{
    uint32_t sn = *number_at(&kcp->log, order);
    if (wire_diff(sn, kcp->snd_una) < 0)
        return NULL;
    struct send_slot *slot = send_at(kcp, sn);
    if (slot->acked || slot->lost || slot->order != order || slot->fast >= KCP_FAST_LIMIT)
        return NULL;
    return slot;
}

/* Moves the cursor up to `order`, and marks. */
static void walk(struct kcp *kcp, uint32_t order, enum kcp_lost why)
{
    for (struct number_queue *log = &kcp->log; wire_diff(log->head, order) < 0; log->head++) {
        if (suspect(kcp, log->head))
            mark(kcp, *number_at(log, log->head), why);
    }
}

void kcp_find_overtaken(struct kcp *kcp, uint32_t now)
{
    if (kcp->top_count == 0)
        return;
    uint32_t resend = kcp->settings.resend < KCP_RESEND_MAX ? kcp->settings.resend : KCP_RESEND_MAX;
    if (resend > 0 && kcp->top_count >= resend)
        walk(kcp, kcp->top[resend - 1], KCP_LOST_FAST);
    /* Does anything overtaken remain? Then a flush within `interval` looks at it again. */
    while (wire_diff(kcp->log.head, kcp->top[0]) < 0 && !suspect(kcp, kcp->log.head))
        kcp->log.head++;
    bool remains = wire_diff(kcp->log.head, kcp->top[0]) < 0;
    if (remains && !kcp->early_armed)
        kcp->early_ts = now + kcp->settings.interval;
    kcp->early_armed = remains;
}

void kcp_find_early(struct kcp *kcp, bool nothing_new, uint32_t now)
{
    if (!kcp->early_armed)
        return;
    if (nothing_new) {
        walk(kcp, kcp->top[0], KCP_LOST_EARLY);
        kcp->early_armed = false;
    } else {
        kcp->early_ts = now + kcp->settings.interval;
    }
}

void kcp_find_timeouts(struct kcp *kcp, uint32_t now)
{
    if (kcp->in_flight == 0 || wire_diff(now, kcp->rto_bound) < 0)
        return;
    uint32_t bound = now + KCP_RTO_MAX;
    for (uint32_t sn = kcp->snd_una; sn != kcp->snd_nxt; sn++) {
        struct send_slot *slot = send_at(kcp, sn);
        if (slot->acked)
            continue;
        uint32_t due = slot->resendts;
        if (wire_diff(now, due) >= 0) {
            mark(kcp, sn, KCP_LOST_TIMEOUT);
            if (slot->lost)
                continue; /* its transmission, in this flush, lowers the bound again */
            due = now + kcp->settings.interval;
        }
        if (wire_diff(due, bound) < 0)
            bound = due;
    }
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
