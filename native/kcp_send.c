#include "kcp_internal.h"

#include <stdlib.h>

/* --- the application fills the window --- */

/* Free bytes at the end of the last segment, if that has not been sent and is open. */
static uint32_t tail_room(const struct kcp *kcp)
{
    if (kcp->finished || kcp->snd_end == kcp->snd_nxt)
        return 0;
    uint32_t length = send_at(kcp, kcp->snd_end - 1)->length;
    return length < kcp->mss ? kcp->mss - length : 0;
}

/* Fresh segments that the window takes. */
static uint32_t fresh_room(const struct kcp *kcp)
{
    uint32_t used = kcp->snd_end - kcp->snd_una;
    return kcp->finished || used >= kcp->settings.sndwnd ? 0 : kcp->settings.sndwnd - used;
}

size_t kcp_room(const struct kcp *kcp)
{
    return (size_t)tail_room(kcp) + (size_t)fresh_room(kcp) * kcp->mss;
}

int kcp_writable(struct kcp *kcp, struct iovec *iov, int limit)
{
    int count = 0;
    kcp->open_tail = 0;
    kcp->open_new = 0;
    uint32_t tail = tail_room(kcp);
    if (tail > 0 && limit > 0) {
        struct send_slot *slot = send_at(kcp, kcp->snd_end - 1);
        iov[count++] = (struct iovec){.iov_base = slot->data + slot->length, .iov_len = tail};
        kcp->open_tail = tail;
    }
    uint32_t used = kcp->snd_end - kcp->snd_una;
    uint32_t fresh = fresh_room(kcp);
    while (count < limit && kcp->open_new < fresh && kcp_send_reserve(kcp, used + kcp->open_new + 1)) {
        uint8_t *data = pool_get(kcp->pool);
        if (!data)
            break;
        *send_at(kcp, kcp->snd_end + kcp->open_new) = (struct send_slot){.data = data};
        kcp->open_new++;
        iov[count++] = (struct iovec){.iov_base = data, .iov_len = kcp->mss};
    }
    return count;
}

void kcp_commit(struct kcp *kcp, size_t n)
{
    uint32_t fresh = kcp->open_new;
    uint32_t part = n < kcp->open_tail ? (uint32_t)n : kcp->open_tail;
    if (part > 0)
        send_at(kcp, kcp->snd_end - 1)->length += (uint16_t)part;
    kcp->counters.bytes_sent += part;
    n -= part;
    for (; fresh > 0 && n > 0; fresh--) {
        part = n < kcp->mss ? (uint32_t)n : kcp->mss;
        send_at(kcp, kcp->snd_end)->length = (uint16_t)part;
        kcp->snd_end++;
        kcp->counters.bytes_sent += part;
        n -= part;
    }
    for (uint32_t i = 0; i < fresh; i++)
        pool_put(kcp->pool, send_at(kcp, kcp->snd_end + i)->data);
    kcp->open_tail = 0;
    kcp->open_new = 0;
}

size_t kcp_send(struct kcp *kcp, const void *data, size_t n)
{
    size_t taken = 0;
    while (taken < n) {
        struct iovec iov[16];
        size_t wanted = (n - taken + kcp->mss - 1) / kcp->mss + 1;
        int count = kcp_writable(kcp, iov, wanted < 16 ? (int)wanted : 16);
        size_t step = 0;
        for (int i = 0; i < count && taken + step < n; i++) {
            size_t part = n - taken - step < iov[i].iov_len ? n - taken - step : iov[i].iov_len;
            memcpy(iov[i].iov_base, (const uint8_t *)data + taken + step, part);
            step += part;
        }
        kcp_commit(kcp, step);
        if (step == 0)
            break;
        taken += step;
    }
    return taken;
}

bool kcp_finish(struct kcp *kcp)
{
    if (kcp->finished)
        return true;
    if (!kcp_send_reserve(kcp, kcp->snd_end - kcp->snd_una + 1))
        return false;
    *send_at(kcp, kcp->snd_end) = (struct send_slot){.data = NULL};
    kcp->snd_end++;
    kcp->finished = true;
    return true;
}

uint32_t kcp_unacked(const struct kcp *kcp)
{
    return kcp->snd_end - kcp->snd_una;
}

bool kcp_data_acked(const struct kcp *kcp)
{
    return kcp->snd_end - kcp->snd_una <= (kcp->finished ? 1 : 0);
}

/* --- acknowledgements drain it --- */

static void release(struct kcp *kcp, struct send_slot *slot)
{
    if (slot->data)
        pool_put(kcp->pool, slot->data);
    slot->data = NULL;
}

static void progress(struct kcp *kcp, uint32_t now)
{
    kcp->progress_ts = now;
    kcp->exhausted = false;
}

bool kcp_ack_una(struct kcp *kcp, uint32_t una, uint32_t now)
{
    if (una == kcp->snd_una)
        return false;
    for (bool first = true; kcp->snd_una != una; kcp->snd_una++, first = false) {
        struct send_slot *slot = send_at(kcp, kcp->snd_una);
        if (slot->acked)
            continue;
        kcp_learn_una(kcp, slot, first, now);
        release(kcp, slot);
        kcp->in_flight--;
    }
    progress(kcp, now);
    if (wire_diff(kcp->rmt_edge, una) < 0)
        kcp->rmt_edge = una;
    if (una == kcp->snd_nxt)
        kcp_log_clear(kcp);
    if (una == kcp->snd_end && kcp->snd_size > KCP_RING_MIN) {
        free(kcp->snd);
        kcp->snd = NULL;
        kcp->snd_size = 0;
    }
    return true;
}

void kcp_ack_sn(struct kcp *kcp, uint32_t sn, uint32_t ts, uint32_t now)
{
    if (wire_diff(sn, kcp->snd_una) < 0)
        return;
    struct send_slot *slot = send_at(kcp, sn);
    if (slot->acked)
        return;
    kcp_learn_ack(kcp, slot, ts, now);
    if (slot->ts == ts)
        kcp_note_arrival(kcp, slot->order);
    release(kcp, slot);
    slot->acked = 1;
    kcp->in_flight--;
    progress(kcp, now);
}

void kcp_send_release(struct kcp *kcp)
{
    for (uint32_t sn = kcp->snd_una; sn != kcp->snd_end + kcp->open_new; sn++)
        release(kcp, send_at(kcp, sn));
    kcp->snd_una = kcp->snd_nxt = kcp->snd_end;
    kcp->open_new = 0;
    free(kcp->snd);
    kcp->snd = NULL;
    kcp->snd_size = 0;
}

/* --- round-trip time --- */

void kcp_rto_update(struct kcp *kcp)
{
    uint32_t floor = kcp->settings.nodelay ? KCP_RTO_MIN_NODELAY : KCP_RTO_MIN;
    uint32_t rto = KCP_RTO_DEFAULT;
    if (kcp->measured) {
        uint32_t spread = (uint32_t)kcp->rttvar32 / 8; /* 4 * rttvar */
        if (spread < kcp->settings.interval + KCP_TIMER_LATE)
            spread = kcp->settings.interval + KCP_TIMER_LATE; /* an ACK may wait so long for company */
        if (spread < kcp->reorder.trip)
            spread = kcp->reorder.trip; /* what may come so late is not to be sent again before */
        rto = (uint32_t)kcp->srtt8 / 8 + spread;
    }
    if (rto < floor)
        rto = floor;
    kcp->rto = rto < KCP_RTO_MAX ? rto : KCP_RTO_MAX;
}

void kcp_rtt_update(struct kcp *kcp, uint32_t sample)
{
    int32_t rtt = (int32_t)sample;
    kcp_learn_trip(kcp, sample);
    kcp_bdp_trip(kcp, sample);
    if (!kcp->measured) {
        kcp->measured = true;
        kcp->srtt8 = rtt * 8;
        kcp->rttvar32 = rtt * 16;
    } else {
        int32_t error8 = rtt * 8 - kcp->srtt8;
        kcp->srtt8 += error8 / 8;
        int32_t error32 = (error8 < 0 ? -error8 : error8) * 4;
        /* A sample below the expected range says the path became quicker, not less steady: 1/32 instead of 1/4, as in
         * Linux's TCP and kcp-go. */
        bool below = rtt * 32 < kcp->srtt8 * 4 - kcp->rttvar32;
        kcp->rttvar32 += (error32 - kcp->rttvar32) / (below ? 32 : 4);
    }
    kcp_rto_update(kcp);
}

void kcp_rtt_sample(struct kcp *kcp, uint32_t rtt)
{
    if (!kcp->measured && rtt < KCP_RTO_MAX)
        kcp_rtt_update(kcp, rtt);
}
