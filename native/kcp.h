/* The ARQ: one KCP session's sending and receiving halves, sans I/O.
 *
 * Nothing here makes a system call, reads a clock or knows a thread. The caller hands in datagrams and the time, and
 * takes away datagrams (through a struct kcp_sink) and the next deadline. Times are milliseconds on a clock of the
 * caller's that may start anywhere and wraps around at 2^32.
 *
 * A turn of the caller goes:
 *
 *   kcp_input ...            for each datagram that arrived; payload may be borrowed from the datagram
 *   kcp_readable/kcp_consume what is in order goes to the application
 *   kcp_settle               before the datagrams' memory is used again: keeps what was borrowed and not consumed
 *   kcp_writable/kcp_commit  the application's bytes into the send window
 *   kcp_flush                acknowledgements, probes, new and lost segments into datagrams
 *   kcp_deadline             when to call kcp_flush again if nothing else happens
 *
 * Windows are rings indexed by sn: slot = sn & mask. They start small and double with the packets in flight, up to the
 * configured window, and shrink again when they have drained: an idle session holds next to nothing. */
#ifndef KCPSOCKET_KCP_H
#define KCPSOCKET_KCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pool.h"

#define KCP_WINDOW_MAX 32768 /* packets; the window field has 16 bits, and half of the sn circle must stay free */

struct kcp_settings {
    uint32_t mtu;       /* bytes a datagram may have here: the UDP payload less crypto and FEC headers */
    uint32_t sndwnd;    /* send window, packets, 1 to KCP_WINDOW_MAX */
    uint32_t rcvwnd;    /* receive window, packets, 1 to KCP_WINDOW_MAX */
    uint32_t interval;  /* ms an ACK may wait for company; also, with 5 ms, the floor of RTO's variance term */
    uint32_t resend;    /* segments overtaking one before it is sent again, over 16 as 16; 0: never. At once on a path
                         * that keeps their order, else when it is later than the path has been seen to make one */
    uint32_t dead_link; /* transmissions of one segment after which, with user_timeout passed too, the link is dead */
    uint32_t user_timeout; /* ms without progress after which the link may be dead (as TCP_USER_TIMEOUT) */
    bool nodelay;       /* RTO from 30 ms and growing by half, instead of from 100 ms and doubling */
    bool nc;            /* no congestion window */
    bool bdp_limit;     /* without one, no more in flight than the path carries */
    bool acknodelay;    /* acknowledge every batch of input at once */
    bool fec;           /* lost datagrams may be rebuilt by the peer, later than others come */
};

/* Where a flush puts its datagrams. */
struct kcp_sink {
    /* Room for a datagram of the largest settings.mtu that the session has had: what was cut goes out as it is. Never
     * NULL. */
    uint8_t *(*open)(struct kcp_sink *sink);
    /* The datagram opened last is complete, `length` bytes long. */
    void (*close)(struct kcp_sink *sink, size_t length);
};

/* Counters of one session, since it began. */
struct kcp_counters {
    uint64_t bytes_sent;        /* payload taken from the application */
    uint64_t bytes_received;    /* payload given to the application */
    uint64_t in_segs, out_segs; /* segments of every command */
    uint64_t retrans_segs;      /* PUSH sent again, for any of the three reasons below, or twice at once */
    uint64_t fast_retrans_segs; /* ... overtaken by `resend` others */
    uint64_t early_retrans_segs; /* ... overtaken by one while nothing new was to be sent */
    uint64_t lost_segs;         /* ... RTO passed */
    uint64_t spurious_segs;     /* of those retransmissions: known by now to have been needless */
    uint64_t repeat_segs;       /* PUSH received that had been received before */
};

/* What a kcp_input found, as bits. */
enum {
    KCP_IN_FLUSH = 1,    /* there is something to send, or the window slid with data in it, or a segment was found lost,
                          * or enough ACKs wait: call kcp_flush this turn */
    KCP_IN_RESET = 2,    /* a RESET that echoes our clock of the last two minutes, or names an sn that the peer may
                          * expect next: it has no such session */
    KCP_IN_OURS = 4,     /* at least one segment of this conversation was understood */
};

enum { /* errors of kcp_input: the datagram, or the rest of it, was dropped */
    KCP_EINVAL = -1, /* truncated, or a length that does not fit, or an unknown command, or nothing in it credible */
    KCP_ECONV = -2,  /* another conversation */
};

struct kcp;

/* A new session. `pool` provides payload buffers and must outlive it. The first segment has sn 0 in both directions.
 * NULL when out of memory. */
struct kcp *kcp_new(uint32_t conv, const struct kcp_settings *settings, struct pool *pool, uint32_t now);
void kcp_free(struct kcp *kcp);

/* Changes settings on a live session. A smaller window takes effect as the packets beyond it drain; a smaller MTU for
 * segments not yet cut (those already cut go out as they are: call before connect where it matters). */
void kcp_configure(struct kcp *kcp, const struct kcp_settings *settings);
uint32_t kcp_conv(const struct kcp *kcp);
const struct kcp_settings *kcp_settings_of(const struct kcp *kcp);

/* Tests only, before any traffic: both sides start at these sequence numbers instead of 0. */
void kcp_start_at(struct kcp *kcp, uint32_t snd_sn, uint32_t rcv_sn);

/* --- the application's side: sending --- */

/* Bytes that the send window still takes. 0 after kcp_finish. */
size_t kcp_room(const struct kcp *kcp);

/* Places to write the application's next bytes to, in order: the unfilled end of a segment that has not been sent, then
 * fresh segments, up to `limit` entries of `iov`. Returns the number of entries; 0 when the window is full, the stream
 * finished or memory is out. Must be followed by kcp_commit before any other call. */
int kcp_writable(struct kcp *kcp, struct iovec *iov, int limit);

/* `n` bytes were written to the places that kcp_writable gave; 0 is fine. */
void kcp_commit(struct kcp *kcp, size_t n);

/* Copies up to `n` bytes of `data` into the window and returns how many it took: kcp_writable and kcp_commit in one. */
size_t kcp_send(struct kcp *kcp, const void *data, size_t n);

/* Ends the outgoing stream with a PUSH of zero bytes, behind everything sent. It may lie one beyond the send window's
 * queue, so it never fails for a full window; false when out of memory (nothing happened: call again). */
bool kcp_finish(struct kcp *kcp);

/* Segments queued or in flight, the closing one included: 0 means the peer has acknowledged everything. */
uint32_t kcp_unacked(const struct kcp *kcp);

/* True when only the closing PUSH, at most, is still unacknowledged. */
bool kcp_data_acked(const struct kcp *kcp);

/* Asks for a WASK (handshake, keepalive) or a WINS in the next flush. */
void kcp_ask(struct kcp *kcp);
void kcp_tell(struct kcp *kcp);

/* --- the application's side: receiving --- */

/* The in-order payload not yet consumed, up to `limit` entries; returns the number of entries. */
int kcp_readable(const struct kcp *kcp, struct iovec *iov, int limit);

/* The application took `n` bytes of it. When this opens a window that was shut, a WINS goes out with the next flush:
 * returns true if so. */
bool kcp_consume(struct kcp *kcp, size_t n);

/* True once everything before the peer's closing PUSH has been consumed. */
bool kcp_at_end(const struct kcp *kcp);

/* True when the peer's closing PUSH has arrived in order (data before it may still wait to be consumed). */
bool kcp_peer_finished(const struct kcp *kcp);

/* Copies up to `n` bytes out and consumes them: kcp_readable and kcp_consume in one. */
size_t kcp_recv(struct kcp *kcp, void *data, size_t n);

/* --- the network's side --- */

/* Takes in the segments of one datagram's payload. `recovered`: rebuilt by FEC, so neither RTT nor the peer's window is
 * read from it. In-order and out-of-order payload is borrowed from `data` until kcp_consume or kcp_settle.
 * Returns KCP_IN_* bits or a negative error. */
int kcp_input(struct kcp *kcp, const uint8_t *data, size_t length, bool recovered, uint32_t now);

/* Copies borrowed payload that still waits into buffers of the pool. Out of memory drops such segments as if they had
 * been lost on the way, except that those already acknowledged by una can't be: then it returns false, and the caller
 * must end the session. */
bool kcp_settle(struct kcp *kcp);

/* Packs into datagrams: ACKs, probes, new segments as the windows allow, and every segment found lost.
 * The caller reads the clock once for it. */
void kcp_flush(struct kcp *kcp, uint32_t now, struct kcp_sink *sink);

/* Only the ACKs (and WINS) that wait. */
void kcp_flush_acks(struct kcp *kcp, uint32_t now, struct kcp_sink *sink);

/* The peer may have been heard but not listened to: no RTO passes in the next settings.interval. */
void kcp_put_off_timeouts(struct kcp *kcp, uint32_t now);

/* ms from `now` until kcp_flush has something to do (0: now), or -1 when the session is at rest. */
int64_t kcp_deadline(const struct kcp *kcp, uint32_t now);

/* True when a segment was sent dead_link times and nothing was acknowledged for user_timeout. With a shut remote
 * window, when its probes have gone unanswered for user_timeout. */
bool kcp_dead(const struct kcp *kcp, uint32_t now);

/* True when the peer has, for longer than a round trip and in several datagrams, claimed not to have received what it
 * acknowledged before: it was restarted. */
bool kcp_peer_restarted(const struct kcp *kcp, uint32_t now);

/* Takes a round-trip time measured by other means (the handshake) as the first sample. */
void kcp_rtt_sample(struct kcp *kcp, uint32_t rtt);

/* The time at which anything of this session last arrived, and a segment header for a RESET to the peer. */
uint32_t kcp_last_heard(const struct kcp *kcp);
size_t kcp_reset_segment(const struct kcp *kcp, uint8_t *out);

/* The RESET that answers the datagram `data` of no known session; 0 where none is due (a RESET, or malformed). */
size_t kcp_reset_answer(const uint8_t *data, size_t length, uint8_t *out);

struct kcp_state { /* a snapshot, for kcp_info and tests */
    uint32_t conv;
    uint32_t srtt, rttvar, rto;          /* ms; srtt 0: not measured yet */
    uint32_t reorder;                    /* ms that a segment may be late, as learnt, before it counts as lost */
    uint32_t snd_una, snd_nxt, snd_end;  /* oldest unacknowledged, next to send first, end of the queue */
    uint32_t rcv_head, rcv_nxt;          /* next to consume, next expected */
    uint32_t rmt_wnd, cwnd, ssthresh;    /* packets */
    uint32_t bdp_limit;                  /* packets that the path takes in flight; 0: no limit */
    uint32_t rcv_free;                   /* packets that the receive window still takes */
    uint32_t snd_ring, rcv_ring;         /* slots that the rings have now */
    struct kcp_counters counters;
};
void kcp_snapshot(const struct kcp *kcp, struct kcp_state *out);

#endif
