#include "kcp_internal.h"

#include <stdlib.h>

/* --- acknowledgements --- */

/* True when there is a place behind the last ACK for another. */
static bool reserve_ack(struct kcp *kcp)
{
    if (kcp->ack_count < kcp->ack_size)
        return true;
    if (kcp->ack_size >= KCP_ACKS_MAX)
        return false;
    uint32_t size = kcp->ack_size ? 2 * kcp->ack_size : KCP_RING_MIN;
    struct kcp_ack *grown = realloc(kcp->acks, size * sizeof(*grown));
    if (!grown)
        return false;
    kcp->acks = grown;
    kcp->ack_size = size;
    return true;
}

/* Notes that `segment` is to be acknowledged. */
static void acknowledge(struct kcp *kcp, const struct wire_segment *segment, uint32_t now)
{
    if (kcp->ack_pushes++ == 0)
        kcp->ack_ts = now;
    kcp->ack_bytes += segment->len;
    /* One that una speaks for is only sent as the last of all: the next takes its place. */
    bool waits = kcp->ack_count > kcp->ack_told;
    bool replace = waits && wire_diff(kcp->acks[kcp->ack_count - 1].sn, kcp->rcv_nxt) < 0;
    if (!replace && reserve_ack(kcp)) {
        kcp->ack_count++;
        waits = true;
    }
    if (waits)
        kcp->acks[kcp->ack_count - 1] =
            (struct kcp_ack){.sn = segment->sn, .ts = segment->ts, .repeats = KCP_ACK_REPEATS};
    else
        kcp->tell = true; /* no memory for even one: a WINS carries una too */
    if (kcp->settings.acknodelay || kcp->ack_pushes >= kcp->settings.mtu / WIRE_HEADER || kcp->ack_bytes > kcp->mss)
        kcp->ack_now = true;
}

bool kcp_ack_needed(const struct kcp *kcp, uint32_t index)
{
    uint32_t sn = kcp->acks[index].sn;
    if (wire_diff(sn, kcp->rcv_nxt) < 0)
        return index + 1 == kcp->ack_count; /* una says it; the last one gives the peer an RTT sample */
    return wire_diff(sn, kcp->rcv_head + kcp->rcv_size) < 0 && recv_at(kcp, sn)->present;
}

/* `sn` has come again. If it was because our ACK was lost, other ACKs may be, too. */
static void note_repeat(struct kcp *kcp, uint32_t sn)
{
    bool ahead = wire_diff(sn, kcp->rcv_nxt) >= 0;
    if (ahead ? recv_at(kcp, sn)->told : wire_diff(sn, kcp->told_una) < 0)
        kcp->ack_credit = kcp->ack_credit < KCP_ACK_CREDIT_MAX ? kcp->ack_credit + KCP_ACK_CREDIT : KCP_ACK_CREDIT_MAX;
}

uint32_t kcp_acks_first(const struct kcp *kcp)
{
    uint32_t room = kcp->settings.mtu / WIRE_HEADER, fresh = kcp->ack_count - kcp->ack_told;
    if (fresh == 0)
        return kcp->ack_count;
    uint32_t most = fresh < room ? room - fresh : 0;
    return kcp->ack_told > most ? kcp->ack_told - most : 0;
}

/* Keeps the ACKs that are to be repeated, of those that have just been sent. */
static void keep_told(struct kcp *kcp)
{
    uint32_t kept = 0;
    for (uint32_t i = kcp_acks_first(kcp); i < kcp->ack_count; i++) {
        struct kcp_ack ack = kcp->acks[i];
        if (i < kcp->ack_told) {
            ack.repeats--;
            kcp->ack_credit--;
        }
        if (ack.repeats > 0 && kept < kcp->ack_credit && wire_diff(ack.sn, kcp->rcv_nxt) >= 0)
            kcp->acks[kept++] = ack;
    }
    kcp->ack_told = kcp->ack_count = kept;
}

void kcp_acks_sent(struct kcp *kcp)
{
    if (kcp->ack_count > kcp->ack_told)
        keep_told(kcp);
    kcp->ack_pushes = 0;
    kcp->ack_bytes = 0;
    kcp->ack_now = false;
    if (kcp->ack_count == 0 && kcp->ack_size > 4 * KCP_RING_MIN) {
        free(kcp->acks);
        kcp->acks = NULL;
        kcp->ack_size = 0;
    }
}

/* --- the window --- */

static void release(struct kcp *kcp, struct recv_slot *slot)
{
    if (slot->data && !slot->borrowed)
        pool_put(kcp->pool, (uint8_t *)slot->data);
    *slot = (struct recv_slot){.data = NULL};
    kcp->rcv_count--;
}

/* Keeps the payload's own memory in use until kcp_settle; copies it at once when that can't be noted. */
static bool borrow(struct kcp *kcp, uint32_t sn, struct recv_slot *slot, const uint8_t *data, uint32_t length)
{
    *slot = (struct recv_slot){.length = (uint16_t)length, .present = 1};
    if (length == 0)
        return true;
    if (number_queue_push(&kcp->borrowed, sn, KCP_RING_MAX)) {
        slot->data = data;
        slot->borrowed = 1;
        return true;
    }
    uint8_t *copy = pool_get(kcp->pool);
    if (!copy) {
        slot->present = 0;
        return false;
    }
    memcpy(copy, data, length);
    slot->data = copy;
    return true;
}

/* Behind the closing segment comes nothing: what arrived in order there is let go. */
static void skip_end(struct kcp *kcp)
{
    if (!kcp->rcv_ended || kcp->rcv_head != kcp->rcv_fin)
        return;
    for (; kcp->rcv_head != kcp->rcv_nxt; kcp->rcv_head++)
        release(kcp, recv_at(kcp, kcp->rcv_head));
    kcp->rcv_fin = kcp->rcv_head; /* and the same again for whatever else may come */
}

/* Moves rcv_nxt over what has arrived. */
static void advance(struct kcp *kcp)
{
    while (kcp->rcv_nxt - kcp->rcv_head < kcp->rcv_size && recv_at(kcp, kcp->rcv_nxt)->present) {
        struct recv_slot *slot = recv_at(kcp, kcp->rcv_nxt);
        if (kcp->rcv_ended) {
            release(kcp, slot);
            slot->present = 1;
            kcp->rcv_count++;
        } else if (slot->length == 0) {
            kcp->rcv_ended = true;
            kcp->rcv_fin = kcp->rcv_nxt;
        }
        kcp->rcv_nxt++;
    }
    skip_end(kcp);
}

bool kcp_recv_open(struct kcp *kcp)
{
    uint32_t edge = kcp->rcv_head + kcp->settings.rcvwnd;
    if (wire_diff(edge, kcp->rcv_edge) > 0)
        kcp->rcv_edge = edge;
    /* The peer waits when told 0, and creeps when told little: it hears of the first packet, and of half a window. */
    uint32_t free = kcp_recv_free(kcp);
    uint32_t window = kcp->settings.rcvwnd;
    bool open = (kcp->told_wnd == 0 && free > 0) || (kcp->told_wnd < window / 4 && free >= window / 2);
    if (open && !kcp->tell && !kcp->rcv_ended) {
        kcp->tell = true;
        return true;
    }
    return false;
}

void kcp_push_in(struct kcp *kcp, const struct wire_segment *segment, const uint8_t *data, bool recovered,
                 uint32_t now)
{
    uint32_t sn = segment->sn;
    if (wire_diff(sn, kcp->rcv_edge) >= 0)
        return; /* beyond the window: not acknowledged, it will come again */
    bool known = wire_diff(sn, kcp->rcv_nxt) < 0;
    if (!known) {
        if (!kcp_recv_reserve(kcp, sn - kcp->rcv_head + 1))
            return;
        known = recv_at(kcp, sn)->present;
    }
    if (known) {
        if (!recovered) {
            kcp->counters.repeat_segs++;
            note_repeat(kcp, sn);
        }
        acknowledge(kcp, segment, now);
        kcp->ack_now = true; /* our last ACK was lost or late */
        return;
    }
    if (!borrow(kcp, sn, recv_at(kcp, sn), data, segment->len))
        return;
    kcp->rcv_count++;
    bool in_order = sn == kcp->rcv_nxt;
    if (in_order)
        advance(kcp);
    if (!in_order || kcp->rcv_nxt != sn + 1)
        kcp->ack_now = true; /* makes a hole or fills one */
    acknowledge(kcp, segment, now);
    kcp_recv_open(kcp);
}

/* --- the application empties it --- */

/* The sn before which payload can be read. */
static uint32_t readable_end(const struct kcp *kcp)
{
    return kcp->rcv_ended ? kcp->rcv_fin : kcp->rcv_nxt;
}

int kcp_readable(const struct kcp *kcp, struct iovec *iov, int limit)
{
    uint32_t end = readable_end(kcp);
    uint32_t offset = kcp->rcv_offset;
    int count = 0;
    for (uint32_t sn = kcp->rcv_head; sn != end && count < limit; sn++) {
        struct recv_slot *slot = recv_at(kcp, sn);
        iov[count++] = (struct iovec){.iov_base = (uint8_t *)slot->data + offset, .iov_len = slot->length - offset};
        offset = 0;
    }
    return count;
}

bool kcp_consume(struct kcp *kcp, size_t n)
{
    uint32_t end = readable_end(kcp);
    while (n > 0 && kcp->rcv_head != end) {
        struct recv_slot *slot = recv_at(kcp, kcp->rcv_head);
        size_t left = slot->length - kcp->rcv_offset;
        size_t part = n < left ? n : left;
        kcp->counters.bytes_received += part;
        kcp->rcv_offset += (uint32_t)part;
        n -= part;
        if (part < left)
            break;
        release(kcp, slot);
        kcp->rcv_head++;
        kcp->rcv_offset = 0;
    }
    skip_end(kcp);
    return kcp_recv_open(kcp);
}

bool kcp_at_end(const struct kcp *kcp)
{
    return kcp->rcv_ended && kcp->rcv_head == kcp->rcv_fin;
}

bool kcp_peer_finished(const struct kcp *kcp)
{
    return kcp->rcv_ended;
}

size_t kcp_recv(struct kcp *kcp, void *data, size_t n)
{
    size_t given = 0;
    while (given < n) {
        struct iovec iov[16];
        int count = kcp_readable(kcp, iov, 16);
        size_t step = 0;
        for (int i = 0; i < count && given + step < n; i++) {
            size_t part = n - given - step < iov[i].iov_len ? n - given - step : iov[i].iov_len;
            memcpy((uint8_t *)data + given + step, iov[i].iov_base, part);
            step += part;
        }
        if (step == 0)
            break;
        kcp_consume(kcp, step);
        given += step;
    }
    return given;
}

/* --- borrowed payload --- */

/* Lets go of a segment as if it had never arrived; false when the peer was told that it did, or the application has
 * part of it. */
static bool unreceive(struct kcp *kcp, uint32_t sn)
{
    struct recv_slot *slot = recv_at(kcp, sn);
    if (slot->told || wire_diff(sn, kcp->told_una) < 0 || (sn == kcp->rcv_head && kcp->rcv_offset > 0))
        return false;
    release(kcp, slot);
    if (wire_diff(sn, kcp->rcv_nxt) < 0)
        kcp->rcv_nxt = sn;
    if (kcp->rcv_ended && wire_diff(kcp->rcv_fin, sn) > 0)
        kcp->rcv_ended = false;
    return true;
}

bool kcp_settle(struct kcp *kcp)
{
    struct number_queue *borrowed = &kcp->borrowed;
    bool kept = true;
    for (uint32_t i = borrowed->head; kept && i != borrowed->tail; i++) {
        uint32_t sn = *number_at(borrowed, i);
        if (wire_diff(sn, kcp->rcv_head) < 0 || !recv_at(kcp, sn)->borrowed)
            continue;
        struct recv_slot *slot = recv_at(kcp, sn);
        uint8_t *copy = pool_get(kcp->pool);
        if (copy) {
            memcpy(copy, slot->data, slot->length);
            slot->data = copy;
            slot->borrowed = 0;
        } else {
            kept = unreceive(kcp, sn);
        }
    }
    number_queue_drain(borrowed);
    /* Nothing may point into memory that goes: a session to be ended has no more to read. */
    bool drained = kcp->rcv_count == 0 && kcp->rcv_size > KCP_RING_MIN;
    if (!kept || drained)
        kcp_recv_release(kcp);
    return kept;
}

void kcp_recv_release(struct kcp *kcp)
{
    for (uint32_t i = 0; i < kcp->rcv_size; i++) {
        if (kcp->rcv[i].present)
            release(kcp, &kcp->rcv[i]);
    }
    free(kcp->rcv);
    kcp->rcv = NULL;
    kcp->rcv_size = 0;
    kcp->rcv_head = kcp->rcv_nxt;
    kcp->rcv_offset = 0;
    if (kcp->rcv_ended)
        kcp->rcv_fin = kcp->rcv_head;
}
