#include "kcp_internal.h"

/* What one datagram brought, over all its segments. */
struct arrival {
    uint32_t now;
    bool recovered;
    bool understood; /* a segment was of this session and made sense */
    bool reset;      /* a credible RESET */
    bool advanced;   /* una moved */
    bool acked;      /* an ACK was among them, */
    uint32_t ack_ts; /* the last one of this ts */
    uint32_t una;    /* of the last segment */
};

/* Checks that `data` is whole segments of this conversation. `usable` is set to the bytes before the first one of an
 * unknown command; a datagram wrong in any other way is not usable at all, so that damage to a length can't pass part
 * of a payload for the whole. */
static int check(const struct kcp *kcp, const uint8_t *data, size_t length, size_t *usable)
{
    *usable = 0;
    if (length == 0)
        return KCP_EINVAL;
    for (size_t at = 0; at < length;) {
        if (length - at < WIRE_HEADER)
            return KCP_EINVAL;
        struct wire_segment segment;
        wire_decode(&segment, data + at);
        if (segment.conv != kcp->conv)
            return KCP_ECONV;
        if (segment.cmd < WIRE_PUSH || segment.cmd > WIRE_RESET) {
            *usable = at;
            return KCP_EINVAL;
        }
        if (segment.len > POOL_BUFFER || segment.len > length - at - WIRE_HEADER)
            return KCP_EINVAL;
        at += WIRE_HEADER + segment.len;
    }
    *usable = length;
    return 0;
}

/* The peer's window: news is what comes with a later una, or with the same one and is larger. So a segment that was
 * overtaken on the way can't shut the window again. */
static void read_window(struct kcp *kcp, const struct wire_segment *segment)
{
    int32_t newer = wire_diff(segment->una, kcp->rmt_una);
    uint32_t edge = segment->una + segment->wnd;
    if (kcp->rmt_known && (newer < 0 || (newer == 0 && wire_diff(edge, kcp->rmt_edge) <= 0)))
        return;
    kcp->rmt_known = true;
    kcp->rmt_una = segment->una;
    kcp->rmt_edge = wire_diff(edge, kcp->snd_una) > 0 ? edge : kcp->snd_una;
}

static void take(struct kcp *kcp, const struct wire_segment *segment, const uint8_t *payload, struct arrival *arrival)
{
    uint32_t now = arrival->now;
    kcp->counters.in_segs++;
    if (segment->cmd == WIRE_RESET) {
        /* Blindly forged, it would have to hit conv and one of these: as hard as to forge one of TCP's. */
        bool recent = now - segment->ts <= KCP_RESET_AGE;
        bool expected = segment->sn - kcp->snd_una <= kcp->snd_nxt - kcp->snd_una;
        arrival->reset |= recent || expected;
        return;
    }
    /* Nobody can acknowledge what was not sent: damage, or a session that is not this one. */
    if (wire_diff(segment->una, kcp->snd_nxt) > 0)
        return;
    if (segment->cmd == WIRE_ACK && wire_diff(segment->sn, kcp->snd_nxt) >= 0)
        return;
    arrival->understood = true;
    arrival->una = segment->una;
    /* Before una, which may cover the same segment but doesn't say which of its transmissions arrived. */
    if (segment->cmd == WIRE_ACK)
        kcp_ack_sn(kcp, segment->sn, segment->ts, now);
    if (wire_diff(segment->una, kcp->snd_una) > 0)
        arrival->advanced |= kcp_ack_una(kcp, segment->una, now);
    if (!arrival->recovered)
        read_window(kcp, segment);
    switch (segment->cmd) {
    case WIRE_PUSH:
        kcp->peer_ts = segment->ts;
        kcp_push_in(kcp, segment, payload, arrival->recovered, now);
        break;
    case WIRE_ACK:
        arrival->acked = true;
        arrival->ack_ts = segment->ts;
        break;
    case WIRE_WASK:
        kcp->peer_ts = segment->ts;
        kcp->asked_ts = segment->ts;
        kcp->tell = true;
        break;
    default: /* WINS: its window has been read */
        break;
    }
}

/* Does the peer still know what it acknowledged? One that was overtaken on the way looks as if it didn't, too. */
static void suspect(struct kcp *kcp, uint32_t una, uint32_t snd_una, uint32_t now)
{
    if (wire_diff(una, snd_una) >= 0) {
        kcp->suspect_count = 0;
        return;
    }
    if (kcp->suspect_count++ == 0) {
        kcp->suspect_since = now;
        kcp->suspect_ask = now + kcp->rto;
    }
    kcp->suspect_last = now;
    kcp->suspect_asks = 0;
}

int kcp_input(struct kcp *kcp, const uint8_t *data, size_t length, bool recovered, uint32_t now)
{
    size_t usable;
    int error = check(kcp, data, length, &usable);
    uint32_t snd_una = kcp->snd_una, in_flight = kcp->in_flight;
    struct arrival arrival = {.now = now, .recovered = recovered};
    for (size_t at = 0; at < usable;) {
        struct wire_segment segment;
        wire_decode(&segment, data + at);
        at += WIRE_HEADER;
        take(kcp, &segment, data + at, &arrival);
        at += segment.len;
    }
    if (!arrival.understood && !arrival.reset)
        return error ? error : KCP_EINVAL;
    int found = arrival.reset ? KCP_IN_RESET : 0;
    if (arrival.understood) {
        found |= KCP_IN_OURS;
        kcp->heard_ts = now;
        if (!recovered)
            suspect(kcp, arrival.una, snd_una, now);
        if (arrival.acked && !recovered && now - arrival.ack_ts < KCP_RTO_MAX)
            kcp_rtt_update(kcp, now - arrival.ack_ts);
        if (arrival.acked || arrival.advanced) {
            kcp_find_overtaken(kcp, now);
            kcp_bdp_pace(kcp, now);
            kcp_bdp_delivered(kcp, in_flight - kcp->in_flight, now);
        }
        if (arrival.advanced)
            kcp_cwnd_grow(kcp, kcp->snd_una - snd_una);
        bool moved = arrival.advanced && kcp->snd_una != kcp->snd_end;
        if (moved || kcp->ack_now || kcp_lost_sendable(kcp) || kcp_sendable(kcp) > 0)
            found |= KCP_IN_FLUSH;
    }
    return error ? error : found;
}
