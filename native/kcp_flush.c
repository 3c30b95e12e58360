#include "kcp_internal.h"

/* A datagram being packed. */
struct packer {
    struct kcp *kcp;
    struct kcp_sink *sink;
    uint8_t *start;           /* NULL: none open */
    uint8_t *at;              /* where the next segment goes */
    struct wire_segment head; /* what all segments of this flush have in common */
};

static void packer_begin(struct packer *packer, struct kcp *kcp, struct kcp_sink *sink)
{
    packer->kcp = kcp;
    packer->sink = sink;
    packer->start = packer->at = NULL;
    packer->head = (struct wire_segment){.conv = kcp->conv, .una = kcp->rcv_nxt, .wnd = (uint16_t)kcp_recv_free(kcp)};
}

static void packer_end(struct packer *packer)
{
    if (packer->start)
        packer->sink->close(packer->sink, (size_t)(packer->at - packer->start));
    packer->start = NULL;
}

/* Adds a segment, to the datagram open or, if that has no room, to another. */
static void pack(struct packer *packer, enum wire_cmd cmd, uint32_t sn, uint32_t ts, const uint8_t *data, uint32_t len)
{
    struct kcp *kcp = packer->kcp;
    if (packer->start && (size_t)(packer->at - packer->start) + WIRE_HEADER + len > kcp->settings.mtu)
        packer_end(packer);
    if (!packer->start)
        packer->start = packer->at = packer->sink->open(packer->sink);
    packer->head.cmd = (uint8_t)cmd;
    packer->head.sn = sn;
    packer->head.ts = ts;
    packer->head.len = len;
    packer->at = wire_encode(packer->at, &packer->head);
    if (len > 0) {
        memcpy(packer->at, data, len);
        packer->at += len;
    }
    kcp->told_una = packer->head.una;
    kcp->told_wnd = packer->head.wnd;
    kcp->counters.out_segs++;
}

static void pack_acks(struct packer *packer)
{
    struct kcp *kcp = packer->kcp;
    for (uint32_t i = kcp_acks_first(kcp); i < kcp->ack_count; i++) {
        if (!kcp_ack_needed(kcp, i))
            continue;
        struct kcp_ack ack = kcp->acks[i];
        pack(packer, WIRE_ACK, ack.sn, ack.ts, NULL, 0);
        if (wire_diff(ack.sn, kcp->rcv_nxt) >= 0)
            recv_at(kcp, ack.sn)->told = 1;
    }
    kcp_acks_sent(kcp);
}

static void pack_tell(struct packer *packer)
{
    struct kcp *kcp = packer->kcp;
    if (kcp->tell)
        pack(packer, WIRE_WINS, kcp->snd_nxt, kcp->asked_ts, NULL, 0);
    kcp->tell = false;
}

/* Asks a peer with a shut window, at growing distances. */
static void probe(struct kcp *kcp, uint32_t now)
{
    if (!kcp_stalled(kcp)) {
        kcp->probe_wait = 0;
        return;
    }
    if (kcp->probe_wait == 0) {
        kcp->probe_wait = KCP_PROBE_MIN;
        kcp->probe_since = now;
        kcp->probes = 0;
    } else {
        if (wire_diff(now, kcp->probe_ts) < 0)
            return;
        kcp->ask = true;
        kcp->probes++;
        kcp->probe_wait += kcp->probe_wait / 2;
        if (kcp->probe_wait > KCP_PROBE_MAX)
            kcp->probe_wait = KCP_PROBE_MAX;
    }
    kcp->probe_ts = now + kcp->probe_wait;
}

/* Asks a peer that may have been restarted for its una. */
static void probe_suspect(struct kcp *kcp, uint32_t now)
{
    if (kcp->suspect_count == 0 || wire_diff(now, kcp->suspect_ask) < 0)
        return;
    if (kcp->suspect_asks++ >= KCP_SUSPECT_ASKS) {
        kcp->suspect_count = 0; /* it is silent: nothing to go by */
        return;
    }
    kcp->ask = true;
    kcp->suspect_ask = now + kcp->rto;
}

static void transmit(struct packer *packer, uint32_t sn, uint32_t now)
{
    struct kcp *kcp = packer->kcp;
    struct send_slot *slot = send_at(kcp, sn);
    kcp_bdp_spend(kcp);
    slot->ts = now;
    slot->resendts = now + slot->rto;
    slot->previous = slot->order;
    slot->order = kcp_log_transmission(kcp, sn);
    slot->lost = KCP_LOST_NOT;
    if (slot->xmit < UINT16_MAX)
        slot->xmit++;
    if (slot->xmit >= kcp->settings.dead_link)
        kcp->exhausted = true;
    if (wire_diff(slot->resendts, kcp->rto_bound) < 0)
        kcp->rto_bound = slot->resendts;
    pack(packer, WIRE_PUSH, sn, now, slot->data, slot->length);
}

/* The RTO of the next transmission, which `why` calls for. */
static uint16_t next_rto(const struct kcp *kcp, const struct send_slot *slot, enum kcp_lost why)
{
    if (why != KCP_LOST_TIMEOUT)
        return (uint16_t)kcp->rto;
    uint32_t rto = slot->rto + (kcp->settings.nodelay ? kcp->rto / 2 : kcp->rto);
    return (uint16_t)(rto < KCP_RTO_MAX ? rto : KCP_RTO_MAX);
}

/* Does `slot`, just sent again, go out twice? Whoever waits for it has waited for a round trip, and would for another
 * if this transmission was lost too. Where little is sent that costs next to nothing, unless the slot may not have been
 * lost at all. Where much is, it pays for one that was lost before and holds up everything behind the window. */
static bool doubled(const struct kcp *kcp, const struct send_slot *slot)
{
    bool again = slot->xmit > 2;
    if (!kcp->settings.nc)
        return false;
    if (kcp->snd_end == kcp->snd_nxt && kcp->in_flight <= KCP_THIN)
        return again || slot->sure;
    return again && kcp->snd_nxt - kcp->snd_una >= kcp_window(kcp);
}

/* Sends `slot` as it was just sent, in another datagram. At once, so that one number in the order of sending does for
 * both: what came between them would seem to have overtaken the one, or to have been overtaken by the other. */
static void transmit_double(struct packer *packer, uint32_t sn, struct send_slot *slot)
{
    struct kcp *kcp = packer->kcp;
    kcp_bdp_spend(kcp);
    packer_end(packer);
    pack(packer, WIRE_PUSH, sn, slot->ts, slot->data, slot->length);
    kcp->counters.retrans_segs++;
}

static void retransmit(struct packer *packer, uint32_t now)
{
    struct kcp *kcp = packer->kcp;
    struct kcp_counters *counters = &kcp->counters;
    uint32_t overtaken = 0, timeouts = 0;
    for (struct number_queue *lost = &kcp->lost; lost->head != lost->tail; lost->head++) {
        uint32_t sn = *number_at(lost, lost->head);
        if (wire_diff(sn, kcp->snd_una) < 0 || send_at(kcp, sn)->acked)
            continue; /* found after all, since */
        if (kcp_bdp_room(kcp) == 0)
            break;
        struct send_slot *slot = send_at(kcp, sn);
        enum kcp_lost why = (enum kcp_lost)slot->lost;
        slot->rto = next_rto(kcp, slot, why);
        slot->cause = why & 3;
        if (why == KCP_LOST_TIMEOUT) {
            timeouts++;
            counters->lost_segs++;
        } else {
            overtaken++;
            slot->fast++;
            *(why == KCP_LOST_FAST ? &counters->fast_retrans_segs : &counters->early_retrans_segs) += 1;
        }
        counters->retrans_segs++;
        transmit(packer, sn, now);
        if (doubled(kcp, slot) && kcp_bdp_room(kcp) > 0)
            transmit_double(packer, sn, slot);
    }
    if (overtaken > 0)
        kcp_cwnd_overtaken(kcp);
    if (timeouts > 0)
        kcp_cwnd_timeout(kcp);
}

static void transmit_new(struct packer *packer, uint32_t count, uint32_t now)
{
    struct kcp *kcp = packer->kcp;
    if (count > 0 && kcp->in_flight == 0) {
        kcp->progress_ts = now;
        kcp->rto_bound = now + KCP_RTO_MAX;
    }
    for (; count > 0; count--) {
        uint32_t sn = kcp->snd_nxt++;
        kcp->in_flight++;
        send_at(kcp, sn)->rto = next_rto(kcp, NULL, KCP_LOST_NOT);
        transmit(packer, sn, now);
    }
}

void kcp_flush(struct kcp *kcp, uint32_t now, struct kcp_sink *sink)
{
    struct packer packer;
    packer_begin(&packer, kcp, sink);
    pack_acks(&packer);
    probe(kcp, now);
    probe_suspect(kcp, now);
    if (kcp->ask)
        pack(&packer, WIRE_WASK, kcp->snd_nxt, now, NULL, 0);
    kcp->ask = false;
    pack_tell(&packer);
    kcp_bdp_pace(kcp, now);
    kcp_find_timeouts(kcp, now);
    kcp_find_late(kcp, kcp_queued(kcp) == 0, now);
    retransmit(&packer, now);
    transmit_new(&packer, kcp_sendable(kcp), now);
    kcp_bdp_sent(kcp);
    packer_end(&packer);
}

void kcp_flush_acks(struct kcp *kcp, uint32_t now, struct kcp_sink *sink)
{
    (void)now;
    struct packer packer;
    packer_begin(&packer, kcp, sink);
    pack_acks(&packer);
    pack_tell(&packer);
    packer_end(&packer);
}
