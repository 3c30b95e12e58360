/* A limit on the packets in flight where no congestion window is in use: what the path carries, its bandwidth-delay
 * product, and a small queue. More than that only fills the bottleneck's queue, and what overflows it is sent twice.
 *
 * As in BBR (Cardwell et al., ACM Queue 2016; draft-ietf-ccwg-bbr) the path is known by two figures: the largest
 * delivery rate of the latest rounds, and the least round trip of the latest seconds. Loss lowers neither: the limit
 * even allows for it, since what is lost behind the bottleneck has to pass it too, and takes a round trip to be missed.
 *
 * A round lasts one srtt. Its rate counts only if there was always more to send: where the application sets the pace, a
 * low rate says nothing of the path, and the limit does not shrink. It begins at what hardly overloads any path, and
 * grows with each round to half as much again as is known to fit, until the queue shows in the round trips or the rate
 * stops growing. After that there is no need to probe for bandwidth: the queue that is allowed for drains when the path
 * becomes faster, and so raises the rate. It does hide the least round trip, so every now and then the limit is halved
 * until that has been seen again.
 *
 * Transmissions are paced too: a burst may be as long as the queue allowed for, the rest is spread over the round trip.
 * Else all that a gap held back would go out in one go when the gap is closed, and overflow what is empty until then.
 *
 * Nothing is limited when round trips are so short that a clock of ms can't tell them from a queue. */
#include "kcp_internal.h"

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void kcp_bdp_begin(struct kcp *kcp, uint32_t now)
{
    kcp->bdp = (struct bdp){
        .limit = KCP_BDP_INITIAL,
        .credit = KCP_BDP_INITIAL * KCP_BDP_CREDIT,
        .credit_ts = now,
        .ramp = true,
        .round_ts = now,
        .trip_ts = now,
        .round_trip = UINT32_MAX,
        .trip = UINT32_MAX,
        .trip_next = UINT32_MAX,
    };
}

/* ms of queue that is allowed for; besides, the peer's ACKs may wait for company as long as ours do. */
static uint32_t queue_allowed(const struct kcp *kcp)
{
    return kcp->settings.interval + larger(kcp->bdp.trip / 8, KCP_BDP_QUEUE_MIN);
}

uint32_t kcp_bdp_limit(const struct kcp *kcp)
{
    const struct bdp *bdp = &kcp->bdp;
    if (!kcp->settings.bdp_limit || !kcp->settings.nc || bdp->trip < KCP_BDP_TRIP_MIN)
        return UINT32_MAX;
    return bdp->drain > 0 ? larger(bdp->limit / 2, KCP_BDP_MIN) : bdp->limit;
}

/* Packets that may go out at once: as many as the allowed queue holds. */
static uint32_t burst(const struct kcp *kcp)
{
    uint32_t wait = queue_allowed(kcp), trip = kcp->bdp.trip;
    return larger((uint32_t)((uint64_t)kcp->bdp.limit * wait / (trip + wait)), KCP_BDP_BURST);
}

static bool paced(const struct kcp *kcp)
{
    return kcp->bdp.trip != UINT32_MAX && kcp_bdp_limit(kcp) != UINT32_MAX;
}

/* Packets that the limit leaves room for. */
static uint32_t pipe_room(const struct kcp *kcp)
{
    uint32_t limit = kcp_bdp_limit(kcp);
    uint32_t lost = kcp->lost.tail - kcp->lost.head;
    uint32_t pipe = kcp->in_flight > lost ? kcp->in_flight - lost : 0;
    return pipe < limit ? limit - pipe : 0;
}

uint32_t kcp_bdp_room(const struct kcp *kcp)
{
    uint32_t room = pipe_room(kcp);
    return paced(kcp) ? smaller(room, kcp->bdp.credit / KCP_BDP_CREDIT) : room;
}

void kcp_bdp_pace(struct kcp *kcp, uint32_t now)
{
    struct bdp *bdp = &kcp->bdp;
    if (paced(kcp)) {
        uint32_t most = burst(kcp) * KCP_BDP_CREDIT;
        uint64_t more = (uint64_t)(now - bdp->credit_ts) * kcp_bdp_limit(kcp) * KCP_BDP_CREDIT / bdp->trip;
        if (bdp->credit < most)
            bdp->credit = more < most - bdp->credit ? bdp->credit + (uint32_t)more : most;
    }
    bdp->credit_ts = now;
}

bool kcp_bdp_waits(const struct kcp *kcp, uint32_t *time)
{
    const struct bdp *bdp = &kcp->bdp;
    if (!paced(kcp) || bdp->credit >= KCP_BDP_CREDIT || pipe_room(kcp) == 0)
        return false;
    *time = bdp->credit_ts + 1 + (KCP_BDP_CREDIT - bdp->credit) * bdp->trip / (kcp_bdp_limit(kcp) * KCP_BDP_CREDIT);
    return true;
}

void kcp_bdp_spend(struct kcp *kcp)
{
    struct bdp *bdp = &kcp->bdp;
    bdp->credit -= smaller(bdp->credit, KCP_BDP_CREDIT);
}

void kcp_bdp_sent(struct kcp *kcp)
{
    bool waiting = kcp->lost.head != kcp->lost.tail || kcp->snd_end != kcp->snd_nxt;
    bool full = kcp->snd_end - kcp->snd_una >= kcp->settings.sndwnd;
    if ((!waiting && !full) || kcp_window(kcp) < kcp_bdp_limit(kcp) / 2)
        kcp->bdp.idle = true; /* the application sets the pace: ours, or the peer's */
    else
        kcp->bdp.limited = true;
}

void kcp_bdp_trip(struct kcp *kcp, uint32_t rtt)
{
    struct bdp *bdp = &kcp->bdp;
    bdp->round_trip = smaller(bdp->round_trip, rtt);
    bdp->trip_next = smaller(bdp->trip_next, rtt);
    bdp->trip = smaller(bdp->trip, rtt);
}

/* Rates of the latest KCP_BDP_ROUNDS rounds, and up to as many before. */
static void take_rate(struct bdp *bdp, uint32_t rate, bool counts)
{
    bdp->rate[0] = larger(bdp->rate[0], rate);
    if (!counts || ++bdp->rounds < KCP_BDP_ROUNDS)
        return;
    bdp->rounds = 0;
    bdp->rate[1] = bdp->rate[0];
    bdp->rate[0] = rate;
}

/* The share of transmissions found lost, smoothed over rounds. */
static void take_loss(struct bdp *bdp)
{
    uint32_t all = bdp->delivered + bdp->lost;
    if (all == 0)
        return;
    int32_t share = (int32_t)(bdp->lost * UINT64_C(1024) / all);
    bdp->loss += (share - bdp->loss) / 4;
    if (bdp->loss > KCP_BDP_LOSS_MAX)
        bdp->loss = KCP_BDP_LOSS_MAX;
}

/* Keeps the least round trip from growing old. */
static void age_trip(struct bdp *bdp, bool limited, uint32_t now)
{
    if (bdp->drain > 0) {
        if (--bdp->drain > 0)
            return;
    } else {
        if (bdp->round_trip <= bdp->trip) {
            bdp->trip_ts = now;
            bdp->trip_next = bdp->round_trip;
        }
        if (now - bdp->trip_ts < KCP_BDP_TRIP_MS)
            return;
        if (limited) {
            bdp->drain = KCP_BDP_DRAIN;
            bdp->trip_next = UINT32_MAX;
            return;
        }
    }
    if (bdp->trip_next != UINT32_MAX)
        bdp->trip = bdp->trip_next;
    bdp->trip_next = UINT32_MAX;
    bdp->trip_ts = now;
}

/* Packets in flight at the known rate for a round trip with `queue` ms of waiting, and for loss. */
static uint32_t carried(const struct bdp *bdp, uint32_t queue)
{
    uint64_t packets = (uint64_t)larger(bdp->rate[0], bdp->rate[1]) * (bdp->trip + queue) / 1000;
    packets = packets * 1024 / (uint64_t)(1024 - bdp->loss);
    return packets < KCP_WINDOW_MAX ? (uint32_t)packets : KCP_WINDOW_MAX;
}

static void end_round(struct kcp *kcp, uint32_t now)
{
    struct bdp *bdp = &kcp->bdp;
    uint32_t known = larger(bdp->rate[0], bdp->rate[1]);
    uint32_t rate = (uint32_t)(bdp->delivered * UINT64_C(1000) / (now - bdp->round_ts));
    bool limited = bdp->limited && !bdp->idle && bdp->drain == 0;
    uint32_t queue = queue_allowed(kcp);
    bool queued = bdp->round_trip != UINT32_MAX && bdp->round_trip > bdp->trip + queue / 2;
    take_rate(bdp, rate, limited);
    if (!queued)
        take_loss(bdp); /* else the queue may have overflowed: not to be made room for */
    if (limited && bdp->ramp) {
        bdp->flat = rate > known + known / 8 ? 0 : bdp->flat + 1;
        bool filling = (uint32_t)kcp->srtt8 / 8 > bdp->trip + queue;
        bdp->ramp = !queued && !filling && bdp->flat < KCP_BDP_FLAT;
    }
    age_trip(bdp, bdp->limited, now);
    bdp->fit = carried(bdp, queue);
    if (!bdp->ramp && (limited || bdp->fit > bdp->limit))
        bdp->limit = larger(bdp->fit, KCP_BDP_MIN);
    bdp->round_ts = now;
    bdp->delivered = bdp->lost = 0;
    bdp->round_trip = UINT32_MAX;
    bdp->limited = bdp->idle = false;
}

void kcp_bdp_delivered(struct kcp *kcp, uint32_t packets, uint32_t now)
{
    struct bdp *bdp = &kcp->bdp;
    bdp->delivered += packets;
    uint32_t most = smaller(bdp->fit + bdp->fit / 2, KCP_WINDOW_MAX);
    if (bdp->ramp && bdp->limited && bdp->limit < most)
        bdp->limit = smaller(bdp->limit + packets, most);
    if (bdp->trip != UINT32_MAX && now - bdp->round_ts >= larger((uint32_t)kcp->srtt8 / 8, KCP_BDP_ROUND_MIN))
        end_round(kcp, now);
}
