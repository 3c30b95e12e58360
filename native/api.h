/* What Python calls, through cffi. Every function may be called from any thread, holds no GIL and does not block unless
 * its comment says so. Results are 0 (or a count) or a negative errno.
 *
 * The engine starts at the first call that needs it. After fork, the child has none of the parent's sessions: their
 * descriptors go on working through the kernel, with the parent's engine behind them, and the calls below answer -ESRCH
 * for them (kcps_error, kcps_phase and kcps_name work there too). */
#ifndef KCPSOCKET_API_H
#define KCPSOCKET_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names a session or a listener, in whatever process; 0 names nothing. */
typedef uint64_t kcps_id;

/* Settings of a session, or of those that a listener accepts. */
struct kcps_config {
    uint32_t mtu;          /* bytes of UDP payload, all headers included: 128 to 1500 */
    uint32_t sndwnd;       /* packets, 1 to 32768 */
    uint32_t rcvwnd;       /* packets, 1 to 32768 */
    uint32_t interval;     /* ms, 1 to 5000 */
    uint32_t resend;       /* packets; 0: no fast retransmit */
    uint32_t dead_link;    /* transmissions of one packet */
    uint32_t user_timeout; /* ms (TCP_USER_TIMEOUT) */
    uint32_t connect_timeout; /* ms until a connect without an answer fails with ETIMEDOUT */
    uint32_t keepidle;     /* ms of silence before a keepalive probe; */
    uint32_t keepintvl;    /* ms between probes */
    uint32_t keepcnt;      /* probes without an answer before ETIMEDOUT */
    uint32_t conv;         /* conversation id of a session that connects; 0: random */
    int32_t linger;        /* -1: close returns at once and delivers behind it; 0: close resets; >0: s (kept for getsockopt) */
    uint32_t sockbuf;      /* bytes of the UDP socket's kernel buffers; 0: the system's default */
    uint32_t dscp;         /* 0 to 63 */
    bool nodelay, nc, acknodelay, keepalive, bdp_limit;
    uint8_t crypt;         /* enum seal_kind */
    uint8_t key_length;    /* bytes of key */
    uint8_t datashard, parityshard; /* packets in an FEC group; both 0: no FEC */
    uint8_t key[32];
};

enum kcps_phase {
    KCPS_PHASE_NONE = 0,       /* no such session (any more) */
    KCPS_PHASE_CONNECTING = 1,
    KCPS_PHASE_ESTABLISHED = 2, /* with either half possibly closed */
    KCPS_PHASE_CLOSED = 3,     /* over: finished both ways, or an error */
    KCPS_PHASE_LISTENING = 4,
};

/* An end of a session, as the descriptor's own name tells it in any process that holds it. */
struct kcps_address {
    uint8_t ip[16];    /* network order; IPv4 uses the first 4 bytes */
    uint16_t port;     /* host order */
    uint32_t scope_id; /* IPv6 */
};

struct kcps_name {
    kcps_id id;
    int family;     /* AF_INET or AF_INET6 */
    bool listening;
    struct kcps_address local, peer; /* peer is zero for a listener */
};

/* Who the descriptor `fd` is. -ENOTCONN: a stream with no session behind it (not connected, or not one of ours);
 * -EBADF, -ENOTSOCK as for getsockname. */
int kcps_name(int fd, struct kcps_name *name);

/* Begins a connection. `app_fd` is an unconnected AF_UNIX stream, `udp_fd` a UDP socket connected to the peer, which the
 * engine takes over when 0 is returned. From then on app_fd is connected to the engine, and unwritable until the
 * connection stands or has failed (then kcps_error says why). */
int kcps_connect(int app_fd, int udp_fd, const struct kcps_config *config, kcps_id *id);

/* Makes `app_fd`, an unconnected AF_UNIX stream, a listening socket to which the engine connects each new session.
 * `udp_fd` is bound and taken over when 0 is returned. `directory`: where a private directory can be made for a moment.
 * A later listen() on app_fd itself changes the backlog. */
int kcps_listen(int app_fd, int udp_fd, int backlog, const char *directory, const struct kcps_config *config, kcps_id *id);

/* A listener in this process closed, but sessions it accepted live on and keep its port: gives the port to a new
 * listener (which -ESRCH means it can't). `ip` and `port` as bound. Else as kcps_listen. */
int kcps_relisten(int app_fd, int backlog, const char *directory, const struct kcps_config *config, int family,
                  const struct kcps_address *local, kcps_id *id);
bool kcps_can_relisten(int family, const struct kcps_address *local);

/* The application closed a descriptor of listener `id`: if that was the last one, its port is free (or, while sessions
 * that it accepted still use it, answers newcomers with a RESET) when this returns. */
int kcps_listener_check(kcps_id id);

/* The Python object of `id` is in use / gone: its error stays readable in between. An unknown id does nothing. */
void kcps_claim(kcps_id id);
void kcps_forget(kcps_id id);

enum { KCPS_SEND_MAX = 16384 }; /* bytes */

/* Sends `length` bytes, at most KCPS_SEND_MAX, past the descriptor `app_fd` of `id`: straight from the caller's thread if
 * the engine is idle, else left for the engine; only if nothing that was written to the descriptor still waits. Returns
 * how many bytes it took; the others have to go through the descriptor. */
size_t kcps_send(kcps_id id, int app_fd, const void *data, size_t length);

/* The session's pending error as a positive errno, 0 for none; `clear` takes it, as SO_ERROR does. */
int kcps_error(kcps_id id, bool clear);
enum kcps_phase kcps_phase(kcps_id id);

/* The application is about to shut down (bits: 1 reading, 2 writing) its descriptor of `id`. Tells a shutdown of both
 * from a close, which the kernel alone does not. */
int kcps_shutdown(kcps_id id, int how);

/* A live session's or listener's settings (what a listener has, later sessions get). kcps_set_config leaves crypt, key,
 * conv and shards as they are. */
int kcps_get_config(kcps_id id, struct kcps_config *config);
int kcps_set_config(kcps_id id, const struct kcps_config *config);

/* getsockopt/setsockopt on the UDP socket of `id`. */
int kcps_udp_getsockopt(kcps_id id, int level, int name, void *value, uint32_t *length);
int kcps_udp_setsockopt(kcps_id id, int level, int name, const void *value, uint32_t length);

/* Bytes that wait in the engine: unsent and unacknowledged (as SIOCOUTQ; the descriptor's own queue not counted). */
int64_t kcps_unsent(kcps_id id);

/* Blocks until session `id` is over and everything delivered, at most `timeout` ms: 0, or -EAGAIN. */
int kcps_wait_closed(kcps_id id, uint32_t timeout);

/* Out-of-band datagrams: unreliable, beside the stream, on sessions with FEC only (-EOPNOTSUPP else). kcps_oob_open gives
 * the caller a SOCK_SEQPACKET descriptor to receive and send them by (-EBUSY: one is open already). */
int kcps_oob_open(kcps_id id);
int kcps_oob_send(kcps_id id, const void *data, size_t length);
int kcps_oob_limit(kcps_id id);

struct kcps_info {
    uint32_t conv, mtu, mss;        /* mss: payload bytes of a full segment */
    uint32_t srtt, rttvar, rto;     /* ms */
    uint32_t snd_wnd, rcv_wnd, rmt_wnd, cwnd, ssthresh; /* packets */
    uint32_t bdp_limit;             /* packets that the path takes in flight; 0: no limit */
    uint32_t in_flight, queued;     /* packets sent and not acknowledged; packets not yet sent */
    uint32_t recv_queued;           /* packets in order that the application's descriptor has no room for yet */
    uint64_t bytes_sent, bytes_received;
    uint64_t in_pkts, out_pkts, in_bytes, out_bytes; /* datagrams, and bytes of UDP payload */
    uint64_t in_segs, out_segs, retrans_segs, fast_retrans_segs, early_retrans_segs, lost_segs;
    uint64_t spurious_segs, repeat_segs;
    uint64_t in_errs;               /* datagrams dropped as malformed */
    uint64_t fec_recovered, fec_errs, fec_parity_shards, oob_packets;
    uint32_t phase;                 /* enum kcps_phase */
};
int kcps_info(kcps_id id, struct kcps_info *info);

/* Process-wide counters, in the order of kcps_snmp_names (kcp-go's names). Returns how many there are. */
int kcps_snmp(uint64_t *values, int limit);
const char *kcps_snmp_name(int index);

/* What the process holds for KCP: for leak tests and diagnosis. */
struct kcps_usage {
    uint32_t sessions, listeners, endpoints, time_waits; /* live ones */
    uint64_t pool_bytes;                                /* packet buffers */
    uint32_t pool_in_use;
};
int kcps_usage(struct kcps_usage *usage);

/* At exit: every session counts as closed by the application from now on. kcps_drain then blocks until all is delivered,
 * at most `timeout` ms: 0, or -EAGAIN. */
void kcps_finish_all(void);
int kcps_drain(uint32_t timeout);

#endif
