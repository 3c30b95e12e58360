/* The inside of a struct kcp, shared by the kcp*.c files and nobody else.
 *
 *   kcp.c         life, settings, timers, what the caller asks about
 *   kcp_ring.c    memory of the windows and of the queues of numbers
 *   kcp_input.c   a datagram's segments, one by one
 *   kcp_recv.c    the receive window
 *   kcp_send.c    the send window, as the application fills it and acknowledgements drain it; RTT
 *   kcp_loss.c    which transmissions were lost, and the congestion window's answer
 *   kcp_reorder.c how late a transmission may be and not be lost
 *   kcp_bdp.c     how much the path carries
 *   kcp_flush.c   packing datagrams
 */
#ifndef KCPSOCKET_KCP_INTERNAL_H
#define KCPSOCKET_KCP_INTERNAL_H

#include "kcp.h"
#include "wire.h"

enum {
    KCP_RING_MIN = 16,         /* slots of a ring that is in use at all */
    KCP_RING_MAX = 65536,      /* slots: a full window and the closing PUSH behind it */
    KCP_ACKS_MAX = 4096,       /* ACKs that may wait; a caller flushes long before */
    KCP_ACK_REPEATS = 2,       /* times that an ACK is repeated */
    KCP_ACK_CREDIT = 128,      /* ACKs that each PUSH that came again, though acknowledged before, lets be repeated: */
    KCP_ACK_CREDIT_MAX = 4096, /* some twice the bytes that it cost; and how many may be saved up */
    KCP_RESEND_MAX = 16,       /* a larger `resend` counts as this */
    KCP_FAST_LIMIT = 5,        /* fast and early retransmissions of one segment; from then on only its RTO counts */
    KCP_THIN = 64,             /* packets in flight: so few, and nothing waiting, are of a stream that leaves room */
    KCP_PASSED = 16,           /* times kept for telling since when a transmission has been overtaken */
    KCP_REORDER_MS = 2000,     /* the least time without reordering after which less is tolerated, */
    KCP_REORDER_TRIPS = 16,    /* and the least number of round trips */
    KCP_BDP_INITIAL = 128,     /* packets in flight until the path is known */
    KCP_BDP_MIN = 8,           /* packets; fewer would hardly find what was lost */
    KCP_BDP_BURST = 64,        /* packets that may go out at once, at least */
    KCP_BDP_CREDIT = 1024,     /* parts of a packet that pacing counts in */
    KCP_BDP_ROUNDS = 8,        /* rounds that a delivery rate counts for, at least; at most twice as many */
    KCP_BDP_FLAT = 4,          /* rounds without growth of the rate that end the ramp */
    KCP_BDP_ROUND_MIN = 10,    /* ms: fewer make no rate */
    KCP_BDP_QUEUE_MIN = 10,    /* ms of queue allowed for, besides what ACKs wait */
    KCP_BDP_LOSS_MAX = 410,    /* of 1024: more loss than this is not made room for */
    KCP_BDP_TRIP_MIN = 3,      /* ms: on a shorter path nothing is limited */
    KCP_BDP_TRIP_MS = 10000,   /* ms for which the least round trip counts */
    KCP_BDP_DRAIN = 3,         /* rounds at half the limit, to see it again */
    KCP_RTO_DEFAULT = 200,     /* ms, before the first RTT sample */
    KCP_RTO_MIN = 100,         /* ms */
    KCP_RTO_MIN_NODELAY = 30,  /* ms */
    KCP_TIMER_LATE = 5,        /* ms that a peer's timer may be late with an ACK, or the next segment that calls for one */
    KCP_RTO_MAX = 60000,       /* ms; an RTT sample must be smaller as well */
    KCP_WINDOW_INITIAL = 32,   /* packets that the peer is taken to have room for until it says */
    KCP_SSTHRESH_MIN = 2,      /* packets */
    KCP_PROBE_MIN = 500,       /* ms until the first probe of a shut window */
    KCP_PROBE_MAX = 120000,    /* ms */
    KCP_SUSPECT_DATAGRAMS = 3, /* old una's that make a restart */
    KCP_SUSPECT_MS = 200,      /* and the least time over which they come */
    KCP_SUSPECT_ASKS = 10,     /* probes without an answer that end a suspicion */
    KCP_RESET_AGE = 120000,    /* ms: an older echo of our clock does not vouch for a RESET */
};

/* Why a segment is to be sent again. */
enum kcp_lost {
    KCP_LOST_NOT = 0,
    KCP_LOST_FAST = 1,    /* overtaken by `resend` transmissions */
    KCP_LOST_EARLY = 2,   /* overtaken by one, and nothing new to send */
    KCP_LOST_TIMEOUT = 3, /* its RTO passed */
};

/* A segment of the send window. One without bytes is the closing one. */
struct send_slot {
    uint8_t *data;     /* a buffer of the pool; NULL for the closing segment and once acknowledged */
    uint32_t ts;       /* ms: the last transmission, which an ACK names by it */
    uint32_t resendts; /* ms: when the RTO passes */
    uint32_t order;    /* number of the last transmission among all */
    uint32_t previous; /* number of the transmission before the last, if there was one */
    uint16_t length;   /* bytes of data */
    uint16_t rto;      /* ms, grows with each time-out */
    uint16_t xmit;     /* transmissions, saturating */
    uint8_t fast;      /* retransmissions that were fast or early */
    uint8_t acked : 1; /* by its sn; una has not come this far yet */
    uint8_t lost : 2;  /* enum kcp_lost; not 0: its sn waits in kcp.lost */
    uint8_t cause : 2; /* enum kcp_lost: why the last transmission was made; 0: it is the first */
    uint8_t sure : 1;  /* when lost: more says so than that its own ACK has not come */
};

/* A place of the receive window. */
struct recv_slot {
    const uint8_t *data; /* the pool's, or the datagram's if borrowed; NULL for none */
    uint16_t length;     /* bytes of data */
    uint8_t present : 1; /* the segment has arrived */
    uint8_t borrowed : 1;
    uint8_t told : 1;    /* an ACK with this sn went out: the peer will never send it again */
};

/* Numbers in the order they came, entry `i` at slot[i & (size - 1)]. */
struct number_queue {
    uint32_t *slot;      /* NULL while size is 0 */
    uint32_t size;       /* slots, a power of two */
    uint32_t head, tail; /* the oldest entry; behind the newest */
};

struct kcp_ack {
    uint32_t sn, ts;  /* of the PUSH */
    uint32_t repeats; /* times that it may still be repeated, once told */
};

/* At `ts`, ms, it was found that a transmission of this order had arrived, and none of a larger one before. */
struct overtaking {
    uint32_t order, ts;
};

/* How late a transmission is, in two ways. */
struct lateness {
    uint32_t passed; /* ms since it was found that it had been overtaken */
    uint32_t trip;   /* ms since it would have been acknowledged after the usual round trip */
};

/* What the path carries: see kcp_bdp.c. A round is a round trip long. */
struct bdp {
    uint32_t limit;      /* packets that may be in flight */
    uint32_t credit;     /* packets that may go out now, in parts; pacing fills it up */
    uint32_t credit_ts;  /* ms: when it last did */
    uint32_t fit;        /* packets that fill the path and the queue allowed for, as far as is known */
    uint32_t rate[2];    /* packets/s: the largest of the latest rounds, of some before */
    uint32_t rounds;     /* that rate[0] has seen */
    int32_t loss;        /* share of transmissions that are lost, * 1024, smoothed */
    uint32_t trip;       /* ms: the least round trip; UINT32_MAX: none seen */
    uint32_t trip_next;  /* ms: the least since trip_ts */
    uint32_t trip_ts;    /* ms: when `trip` was last seen */
    uint32_t round_ts;   /* ms: when the round began */
    uint32_t round_trip; /* ms: its least round trip; UINT32_MAX: none seen */
    uint32_t delivered;  /* packets acknowledged in it */
    uint32_t lost;       /* transmissions found lost in it */
    uint8_t flat;        /* rounds since the rate grew */
    uint8_t drain;       /* rounds left at half the limit */
    bool limited;        /* in this round something waited to be sent, */
    bool idle;           /* ... in this one nothing did, or for the peer's application only */
    bool ramp;           /* the limit grows without a queue being seen */
};

struct kcp {
    struct kcp_settings settings;
    struct kcp_counters counters;
    struct pool *pool;
    uint32_t conv;
    uint32_t mss; /* payload bytes of a full segment */

    /* Send window: in flight from snd_una, queued from snd_nxt, to before snd_end. */
    struct send_slot *snd;
    uint32_t snd_size; /* slots, a power of two, or 0 */
    uint32_t snd_una, snd_nxt, snd_end;
    uint32_t in_flight; /* segments of [una, nxt) not acknowledged by their sn either */
    uint32_t open_tail; /* bytes at the last segment's end that kcp_writable offered */
    uint32_t open_new;  /* fresh segments that kcp_writable offered */
    bool finished;      /* the last segment is the closing one */

    /* What the peer lets us send. */
    uint32_t rmt_edge; /* first sn beyond the peer's window */
    uint32_t rmt_una;  /* una of the segment that told the edge */
    bool rmt_known;    /* something has told it */
    uint32_t cwnd, ssthresh; /* packets */
    uint32_t cwnd_credit;  /* packets acknowledged towards the next growth of cwnd, beyond slow start */
    bool cwnd_reduced;     /* has been, and not again until una reaches ... */
    uint32_t cwnd_recover; /* ... this sn */

    /* Round-trip time; scaled so that small differences are not lost. */
    bool measured;
    int32_t srtt8;    /* ms * 8 */
    int32_t rttvar32; /* ms * 32 */
    uint32_t rto;     /* ms */

    /* Loss detection: see kcp_loss.c. */
    struct number_queue log;  /* sn of each transmission, by its order; the cursor is its head */
    struct number_queue lost; /* sn of segments to send again */
    uint32_t top[KCP_RESEND_MAX]; /* the largest acknowledged orders, descending */
    uint32_t top_count;
    bool watch;         /* a segment has been overtaken, if not often enough or not for long enough to be lost: */
    uint32_t watched;   /* the order of its transmission, where the cursor stands */
    uint32_t watch_ts;  /* ms: when a flush looks after it */
    uint32_t rto_bound; /* ms: no RTO in flight passes before */

    /* Reordering: see kcp_reorder.c. A period is some round trips. */
    struct overtaking passed[KCP_PASSED]; /* the latest of them, oldest first */
    uint32_t passed_count;
    struct lateness reorder;      /* that a segment may have; 0: none is to be expected */
    struct lateness reorder_seen; /* the most that this period has called for */
    bool loss_seen;        /* a retransmission was needed: the path does lose */
    uint32_t trip_min[2];  /* ms: the shortest round trip of this period, of the one before; UINT32_MAX: none */
    uint32_t period_ts;    /* ms: when the period began */

    struct bdp bdp;

    /* Receive window: consumed up to rcv_head, in order up to rcv_nxt, out of order up to rcv_edge. */
    struct recv_slot *rcv;
    uint32_t rcv_size; /* slots, a power of two, or 0 */
    uint32_t rcv_head, rcv_nxt, rcv_edge;
    uint32_t rcv_offset; /* bytes of the head's that are consumed */
    uint32_t rcv_count;  /* slots present */
    bool rcv_ended;      /* the closing segment lies in order */
    uint32_t rcv_fin;    /* its sn */
    struct number_queue borrowed; /* sn of slots borrowed since the last kcp_settle */

    /* Acknowledgements to send. Where they get lost, those ahead of una are repeated in the next datagrams that carry
     * any: for want of an ACK the peer sends again what we have. */
    struct kcp_ack *acks;
    uint32_t ack_told;            /* entries sent before, and to be repeated: the first */
    uint32_t ack_count, ack_size; /* entries in use, allocated */
    uint32_t ack_credit;          /* repetitions that are still allowed */
    uint32_t ack_pushes;          /* PUSHes they stand for, */
    uint32_t ack_bytes;           /* and payload bytes; una speaks for most of them */
    uint32_t ack_ts;              /* ms: when the first of them came */
    bool ack_now;                 /* one of them does not wait for company */
    uint32_t told_una, told_wnd;  /* what the last segment that we sent said */

    /* Probes. */
    bool ask, tell;       /* a WASK, a WINS goes with the next flush */
    uint32_t probe_wait;  /* ms between probes of a shut window; 0: not shut, or not noticed yet */
    uint32_t probe_ts;    /* ms: the next one */
    uint32_t probe_since; /* ms: when probing began */
    uint32_t probes;      /* sent since */
    uint32_t asked_ts;    /* ts of the peer's last WASK, which a WINS echoes */
    uint32_t peer_ts;     /* the peer's clock, as last heard: vouches for our RESET */

    /* Is the peer alive, and the same? */
    uint32_t heard_ts;     /* ms: anything arrived */
    uint32_t progress_ts;  /* ms: something was acknowledged, or sent with nothing else in flight */
    bool exhausted;        /* since then a segment had its dead_link-th transmission */
    uint32_t suspect_count; /* datagrams with an old una; 0: no suspicion */
    uint32_t suspect_since, suspect_last; /* ms: the first, the latest of them */
    uint32_t suspect_ask;  /* ms: when to ask again */
    uint32_t suspect_asks; /* questions since the latest of them */
};

/* --- kcp_ring.c --- */

/* Makes room for `count` slots from snd_una, or from rcv_head. False when out of memory: nothing changed. */
bool kcp_send_reserve(struct kcp *kcp, uint32_t count);
bool kcp_recv_reserve(struct kcp *kcp, uint32_t count);

/* Appends, growing up to `limit` slots. False when full or out of memory. */
bool number_queue_push(struct number_queue *queue, uint32_t number, uint32_t limit);

/* Empties it, numbering on, and lets go of more than the smallest size. */
void number_queue_drain(struct number_queue *queue);

static inline struct send_slot *send_at(const struct kcp *kcp, uint32_t sn)
{
    return &kcp->snd[sn & (kcp->snd_size - 1)];
}

static inline struct recv_slot *recv_at(const struct kcp *kcp, uint32_t sn)
{
    return &kcp->rcv[sn & (kcp->rcv_size - 1)];
}

static inline uint32_t *number_at(const struct number_queue *queue, uint32_t index)
{
    return &queue->slot[index & (queue->size - 1)];
}

/* --- kcp.c --- */

/* Packets that may be in flight: the smallest of our window, the peer's, and the congestion window if there is one. */
uint32_t kcp_window(const struct kcp *kcp);

/* Queued segments that the windows let out. */
uint32_t kcp_queued(const struct kcp *kcp);

/* Those of them that may go out now, so as not to overload the path. */
uint32_t kcp_sendable(const struct kcp *kcp);

/* True when only word from the peer can move things on, and no RTO will fetch it: its window is shut before what is
 * queued, or it holds everything in flight and does not say so by una. */
bool kcp_stalled(const struct kcp *kcp);

/* --- kcp_send.c --- */

/* Takes an RTT sample, ms. */
void kcp_rtt_update(struct kcp *kcp, uint32_t rtt);

/* Computes rto anew, after a sample or a setting. */
void kcp_rto_update(struct kcp *kcp);

/* The peer has everything before `una`, which lies in [snd_una, snd_nxt]. True if it is news. */
bool kcp_ack_una(struct kcp *kcp, uint32_t una, uint32_t now);

/* The peer has `sn`, by a transmission at `ts`. */
void kcp_ack_sn(struct kcp *kcp, uint32_t sn, uint32_t ts, uint32_t now);

/* Returns every buffer. */
void kcp_send_release(struct kcp *kcp);

/* --- kcp_loss.c --- */

/* A transmission of this order has arrived. */
void kcp_note_arrival(struct kcp *kcp, uint32_t order);

/* Logs a transmission of `sn` and returns its order. */
uint32_t kcp_log_transmission(struct kcp *kcp, uint32_t sn);

/* Nothing is in flight: forgets all transmissions. */
void kcp_log_clear(struct kcp *kcp);

/* Finds segments overtaken `resend` times and later than tolerated, after arrivals were noted. */
void kcp_find_overtaken(struct kcp *kcp, uint32_t now);

/* In a flush: the same again, as time has passed; and finds segments overtaken once if nothing new is to be sent. */
void kcp_find_late(struct kcp *kcp, bool nothing_new, uint32_t now);

/* In a flush: finds segments whose RTO has passed. */
void kcp_find_timeouts(struct kcp *kcp, uint32_t now);

/* Congestion window, if it is in use: una moved by `acked`; a flush sends again what was overtaken, what timed out. */
void kcp_cwnd_grow(struct kcp *kcp, uint32_t acked);
void kcp_cwnd_overtaken(struct kcp *kcp);
void kcp_cwnd_timeout(struct kcp *kcp);

/* --- kcp_reorder.c --- */

/* The largest acknowledged order is `order`: whatever was sent before has been overtaken. */
void kcp_passed(struct kcp *kcp, uint32_t order, uint32_t now);

/* ms: when a transmission made at `ts` that was overtaken `resend` times, or (`early`) once, is lost. */
uint32_t kcp_due(const struct kcp *kcp, uint32_t order, uint32_t ts, bool early);

/* `slot` has arrived, by a transmission at `ts`, as its ACK says. Before kcp_note_arrival. */
void kcp_learn_ack(struct kcp *kcp, const struct send_slot *slot, uint32_t ts, uint32_t now);

/* `slot`, which no ACK has named, has arrived, as una says. `first`: it is what una has waited for. */
void kcp_learn_una(struct kcp *kcp, const struct send_slot *slot, bool first, uint32_t now);

/* A round trip took `rtt` ms. */
void kcp_learn_trip(struct kcp *kcp, uint32_t rtt);

/* Time passes: forgets what has not been seen for long. */
void kcp_reorder_age(struct kcp *kcp, uint32_t now);

/* --- kcp_bdp.c --- */

/* A new session: nothing is known. */
void kcp_bdp_begin(struct kcp *kcp, uint32_t now);

/* Packets that the path takes in flight; UINT32_MAX: no limit. */
uint32_t kcp_bdp_limit(const struct kcp *kcp);

/* How many more transmissions may be made now. What was found lost and not sent again is not in flight. */
uint32_t kcp_bdp_room(const struct kcp *kcp);

/* Time has passed: more transmissions may be made. */
void kcp_bdp_pace(struct kcp *kcp, uint32_t now);

/* True when time alone lets the next transmission out; `time` is set to when, ms. */
bool kcp_bdp_waits(const struct kcp *kcp, uint32_t *time);

/* A transmission is made. */
void kcp_bdp_spend(struct kcp *kcp);

/* A flush has sent all it may. */
void kcp_bdp_sent(struct kcp *kcp);

/* A round trip took `rtt` ms. */
void kcp_bdp_trip(struct kcp *kcp, uint32_t rtt);

/* A datagram acknowledged `packets`. After what it says of the round trip. */
void kcp_bdp_delivered(struct kcp *kcp, uint32_t packets, uint32_t now);

/* A lost segment waits and may be sent again now. */
static inline bool kcp_lost_sendable(const struct kcp *kcp)
{
    return kcp->lost.head != kcp->lost.tail && kcp_bdp_room(kcp) > 0;
}

/* --- kcp_recv.c --- */

/* Takes in a PUSH whose payload lies at `data`. */
void kcp_push_in(struct kcp *kcp, const struct wire_segment *segment, const uint8_t *data, bool recovered,
                 uint32_t now);

/* Packets that the receive window still takes. */
static inline uint32_t kcp_recv_free(const struct kcp *kcp)
{
    return kcp->rcv_edge - kcp->rcv_nxt;
}

/* Moves the window's edge to where the settings and what was consumed allow; true when the peer should be told. */
bool kcp_recv_open(struct kcp *kcp);

/* Returns every buffer. */
void kcp_recv_release(struct kcp *kcp);

/* The first ACK that goes out with those that wait: as many told ones as fit in the datagram, none if none waits. */
uint32_t kcp_acks_first(const struct kcp *kcp);

/* True when ACK `index` should go out: una does not say it already, or it is the last. */
bool kcp_ack_needed(const struct kcp *kcp, uint32_t index);

/* All ACKs that waited are on their way; keeps those to be repeated. */
void kcp_acks_sent(struct kcp *kcp);

#endif
