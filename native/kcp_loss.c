/* Loss detection, in the order of sending (as RACK, RFC 8985, does by time).
 *
 * Every transmission of a PUSH has a number, its order, and the log says which sn it carried. An ACK that names a
 * segment's last transmission shows that one to have arrived. A transmission is lost once `resend` later ones have
 * arrived: all that is needed of them is the resend-th largest order, so the largest few are kept. A cursor, the log's
 * head, walks up to that order once; what it meets unacknowledged, and not sent again since, is lost. A retransmission
 * is a transmission like any other, so its loss is found the same way. Cost per packet: O(1), amortised. */
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

/* Once a datagram: a packet more in slow start, one more a round trip behind it (as kcp-go counts it, in bytes). */
void kcp_cwnd_grow(struct kcp *kcp)
{
    uint32_t remote = kcp->rmt_edge - kcp->snd_una;
    uint32_t mss = kcp->mss;
    if (kcp->settings.nc || kcp->cwnd >= remote)
        return;
    if (kcp->cwnd < kcp->ssthresh) {
        kcp->cwnd++;
        kcp->incr += mss;
    } else {
        if (kcp->incr < mss)
            kcp->incr = mss;
        kcp->incr += mss * mss / kcp->incr + mss / 16;
        if ((kcp->cwnd + 1) * mss <= kcp->incr)
            kcp->cwnd = (kcp->incr + mss - 1) / mss;
    }
    if (kcp->cwnd > remote) {
        kcp->cwnd = remote;
        kcp->incr = remote * mss;
    }
}

void kcp_cwnd_overtaken(struct kcp *kcp)
{
    uint32_t half = (kcp->snd_nxt - kcp->snd_una) / 2;
    kcp->ssthresh = half > KCP_SSTHRESH_MIN ? half : KCP_SSTHRESH_MIN;
    kcp->cwnd = kcp->ssthresh + kcp->settings.resend;
    kcp->incr = kcp->cwnd * kcp->mss;
}

void kcp_cwnd_timeout(struct kcp *kcp)
{
    uint32_t half = kcp_window(kcp) / 2;
    kcp->ssthresh = half > KCP_SSTHRESH_MIN ? half : KCP_SSTHRESH_MIN;
    kcp->cwnd = 1;
    kcp->incr = kcp->mss;
}
