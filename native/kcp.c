#include "kcp_internal.h"

#include <stdlib.h>

/* --- life --- */

static uint32_t within(uint32_t value, uint32_t least, uint32_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Takes settings, each brought into its range. */
static void adopt(struct kcp *kcp, const struct kcp_settings *settings)
{
    kcp->settings = *settings;
    struct kcp_settings *own = &kcp->settings;
    own->mtu = within(own->mtu, WIRE_HEADER + 1, WIRE_HEADER + POOL_BUFFER);
    own->sndwnd = within(own->sndwnd, 1, KCP_WINDOW_MAX);
    own->rcvwnd = within(own->rcvwnd, 1, KCP_WINDOW_MAX);
    own->interval = within(own->interval, 1, KCP_RTO_MAX);
    own->dead_link = within(own->dead_link, 1, UINT16_MAX);
    kcp->mss = own->mtu - WIRE_HEADER;
}

struct kcp *kcp_new(uint32_t conv, const struct kcp_settings *settings, struct pool *pool, uint32_t now)
{
    struct kcp *kcp = calloc(1, sizeof(*kcp));
    if (!kcp)
        return NULL;
    kcp->pool = pool;
    kcp->conv = conv;
    adopt(kcp, settings);
    kcp->cwnd = 1;
    kcp->ssthresh = KCP_WINDOW_MAX;
    kcp->heard_ts = kcp->progress_ts = kcp->period_ts = now;
    kcp->trip_min[0] = kcp->trip_min[1] = UINT32_MAX;
    kcp_bdp_begin(kcp, now);
    kcp_rto_update(kcp);
    kcp_start_at(kcp, 0, 0);
    return kcp;
}

void kcp_free(struct kcp *kcp)
{
    if (!kcp)
        return;
    kcp_send_release(kcp);
    kcp_recv_release(kcp);
    free(kcp->log.slot);
    free(kcp->lost.slot);
    free(kcp->borrowed.slot);
    free(kcp->acks);
    free(kcp);
}

void kcp_start_at(struct kcp *kcp, uint32_t snd_sn, uint32_t rcv_sn)
{
    kcp->snd_una = kcp->snd_nxt = kcp->snd_end = snd_sn;
    kcp->rmt_una = snd_sn;
    kcp->rmt_edge = snd_sn + KCP_WINDOW_INITIAL;
    kcp->rcv_head = kcp->rcv_nxt = kcp->told_una = rcv_sn;
    kcp->rcv_edge = rcv_sn + kcp->settings.rcvwnd;
    kcp->told_wnd = kcp->settings.rcvwnd;
}

void kcp_configure(struct kcp *kcp, const struct kcp_settings *settings)
{
    adopt(kcp, settings);
    kcp->top_count = 0; /* `resend` may keep more or fewer of them */
    kcp->watch = false;
    kcp_rto_update(kcp);
    kcp_recv_open(kcp);
}

uint32_t kcp_conv(const struct kcp *kcp)
{
    return kcp->conv;
}

const struct kcp_settings *kcp_settings_of(const struct kcp *kcp)
{
    return &kcp->settings;
}

void kcp_ask(struct kcp *kcp)
{
    kcp->ask = true;
}

void kcp_tell(struct kcp *kcp)
{
    kcp->tell = true;
}

/* --- windows and time --- */

uint32_t kcp_window(const struct kcp *kcp)
{
    uint32_t window = kcp->rmt_edge - kcp->snd_una;
    if (window > kcp->settings.sndwnd)
        window = kcp->settings.sndwnd;
    if (!kcp->settings.nc && window > kcp->cwnd)
        window = kcp->cwnd;
    return window;
}

uint32_t kcp_queued(const struct kcp *kcp)
{
    uint32_t queued = kcp->snd_end - kcp->snd_nxt;
    if (queued == 0)
        return 0;
    uint32_t window = kcp_window(kcp);
    uint32_t used = kcp->snd_nxt - kcp->snd_una;
    if (used >= window)
        return 0;
    return queued < window - used ? queued : window - used;
}

uint32_t kcp_sendable(const struct kcp *kcp)
{
    uint32_t queued = kcp_queued(kcp);
    if (queued == 0)
        return 0;
    uint32_t room = kcp_bdp_room(kcp), lost = kcp->lost.tail - kcp->lost.head;
    if (room <= lost)
        return 0; /* what was lost goes first */
    return queued < room - lost ? queued : room - lost;
}

bool kcp_stalled(const struct kcp *kcp)
{
    if (kcp->in_flight > 0)
        return false;
    return kcp->snd_una != kcp->snd_nxt || (kcp->snd_end != kcp->snd_nxt && kcp->rmt_edge == kcp->snd_una);
}

/* The smaller of `least` and the ms from `now` until `time`. */
static int64_t sooner(int64_t least, uint32_t time, uint32_t now)
{
    int64_t left = wire_diff(time, now);
    return left < least ? left : least;
}

int64_t kcp_deadline(const struct kcp *kcp, uint32_t now)
{
    if (kcp->ask || kcp->tell || kcp->ack_now || kcp_lost_sendable(kcp) || kcp_sendable(kcp) > 0)
        return 0;
    int64_t least = INT64_MAX;
    if (kcp->ack_pushes > 0)
        least = sooner(least, kcp->ack_ts + kcp->settings.interval, now);
    if (kcp->in_flight > 0)
        least = sooner(least, kcp->rto_bound, now);
    uint32_t paced;
    if ((kcp->lost.head != kcp->lost.tail || kcp_queued(kcp) > 0) && kcp_bdp_waits(kcp, &paced))
        least = sooner(least, paced, now);
    if (kcp->watch)
        least = sooner(least, kcp->watch_ts, now);
    if (kcp->suspect_count > 0)
        least = sooner(least, kcp->suspect_ask, now);
    if (kcp_stalled(kcp))
        least = kcp->probe_wait > 0 ? sooner(least, kcp->probe_ts, now) : 0;
    if (least == INT64_MAX)
        return -1;
    return least > 0 ? least : 0;
}

/* --- is the peer there? --- */

bool kcp_dead(const struct kcp *kcp, uint32_t now)
{
    uint32_t limit = kcp->settings.user_timeout;
    if (kcp->in_flight > 0)
        return kcp->exhausted && now - kcp->progress_ts >= limit;
    return kcp_stalled(kcp) && kcp->probe_wait > 0 && kcp->probes > 0 && now - kcp->probe_since >= limit &&
           now - kcp->heard_ts >= limit;
}

bool kcp_peer_restarted(const struct kcp *kcp, uint32_t now)
{
    (void)now;
    uint32_t least = (uint32_t)kcp->srtt8 / 4; /* twice srtt */
    if (least < kcp->rto)
        least = kcp->rto;
    if (least < KCP_SUSPECT_MS)
        least = KCP_SUSPECT_MS;
    return kcp->suspect_count >= KCP_SUSPECT_DATAGRAMS && kcp->suspect_last - kcp->suspect_since > least;
}

uint32_t kcp_last_heard(const struct kcp *kcp)
{
    return kcp->heard_ts;
}

size_t kcp_reset_segment(const struct kcp *kcp, uint8_t *out)
{
    struct wire_segment reset = {
        .conv = kcp->conv, .cmd = WIRE_RESET, .ts = kcp->peer_ts, .sn = kcp->rcv_nxt, .una = kcp->rcv_nxt};
    wire_encode(out, &reset);
    return WIRE_HEADER;
}

size_t kcp_reset_answer(const uint8_t *data, size_t length, uint8_t *out)
{
    struct wire_segment reset = {.cmd = 0};
    bool clock = false; /* `reset` echoes a clock that is the peer's for sure */
    size_t at = 0;
    while (at < length) {
        if (length - at < WIRE_HEADER)
            return 0;
        struct wire_segment segment;
        wire_decode(&segment, data + at);
        if (segment.cmd < WIRE_PUSH || segment.cmd > WIRE_WINS || segment.len > length - at - WIRE_HEADER)
            return 0;
        if (at > 0 && segment.conv != reset.conv)
            return 0;
        bool own = segment.cmd == WIRE_PUSH || segment.cmd == WIRE_WASK;
        if (at == 0 || (own && !clock))
            reset = (struct wire_segment){.conv = segment.conv, .ts = segment.ts, .sn = own ? segment.sn : 0};
        clock |= own;
        at += WIRE_HEADER + segment.len;
    }
    if (at == 0)
        return 0;
    reset.cmd = WIRE_RESET;
    reset.una = reset.sn;
    wire_encode(out, &reset);
    return WIRE_HEADER;
}

/* --- what there is to know --- */

void kcp_snapshot(const struct kcp *kcp, struct kcp_state *out)
{
    uint32_t srtt = (uint32_t)kcp->srtt8 / 8;
    *out = (struct kcp_state){
        .conv = kcp->conv,
        .srtt = kcp->measured && srtt == 0 ? 1 : srtt, /* 0 says unmeasured; on loopback it is less than 1 */
        .rttvar = (uint32_t)kcp->rttvar32 / 32,
        .rto = kcp->rto,
        .reorder = kcp->reorder.passed,
        .snd_una = kcp->snd_una,
        .snd_nxt = kcp->snd_nxt,
        .snd_end = kcp->snd_end,
        .rcv_head = kcp->rcv_head,
        .rcv_nxt = kcp->rcv_nxt,
        .rmt_wnd = kcp->rmt_edge - kcp->snd_una,
        .cwnd = kcp->cwnd,
        .ssthresh = kcp->ssthresh,
        .bdp_limit = kcp_bdp_limit(kcp) < UINT32_MAX ? kcp_bdp_limit(kcp) : 0,
        .rcv_free = kcp_recv_free(kcp),
        .snd_ring = kcp->snd_size,
        .rcv_ring = kcp->rcv_size,
        .counters = kcp->counters,
    };
}
