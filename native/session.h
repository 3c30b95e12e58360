/* A session: one KCP connection from its handshake to its end. It ties an ARQ (kcp.h) to the engine's end of the
 * application's stream (stream.h) and to an endpoint, and decides about life and death.
 *
 * Phases: CONNECTING (a client's, until anything of its conv arrives), ESTABLISHED, then over. Within ESTABLISHED the two
 * halves close one by one: `finished` when the application's end of file has been read (a closing PUSH is queued),
 * `ended` when the peer's has been passed on to the application. */
#ifndef KCPSOCKET_SESSION_H
#define KCPSOCKET_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "api.h"
#include "engine.h"
#include "fec.h"
#include "kcp.h"

struct session {
    struct source source;
    struct engine *engine;
    struct endpoint *endpoint;
    struct kcp *kcp;
    kcps_id id;
    int stream_fd;               /* the engine's end; -1 once closed */
    struct address peer, local;
    struct kcps_config config;
    struct timer timer;          /* the next thing to do by itself */

    enum kcps_phase phase;
    bool over;                   /* ended; waits for its memory to be freed */
    bool dirty;                  /* on the engine's list of those with a turn due */
    bool flush;                  /* the turn must flush */
    bool readable, writable;     /* the stream, as far as we know (edges) */
    bool room_watched;           /* room in the stream is reported, */
    uint8_t room_needless;       /* ... and was, this often, while nothing waited for it */
    bool eof_near;               /* a hang-up of at least the writing half was reported: read on to the end of file */
    uint8_t shut;                /* what the application said it shut down: 1 reading, 2 writing */
    bool finished, ended;        /* halves closed, see above */
    bool deaf;                   /* nobody reads: what arrives is discarded */
    bool gone;                   /* the application has closed its last descriptor */
    bool late;                   /* data arrived for an application that is gone, or it left some unread: RESET it */
    bool failed;                 /* an error ended it; only what had arrived still goes to the application */
    bool taking;                 /* small sends may be left for it, as its status says */
    uint8_t *held;               /* what was left for it and has no room in the send window yet; NULL: nothing */
    size_t held_from, held_to;   /* bytes of that */
    uint8_t appetite;            /* packets' worth that the next read from the stream asks for */
    size_t stuffing;             /* bytes to discard from the stream before the application's own (stream_stuff) */

    uint64_t heard;              /* ms: when something valid last came from the peer */
    uint64_t opened;             /* ms: when connect began */
    uint64_t probe_at;           /* ms: next WASK of the handshake or of keepalive */
    uint32_t probe_wait;         /* ms between WASKs of the handshake */
    uint32_t probes;             /* WASKs since the peer was last heard */
    uint64_t gone_at;            /* ms: when the application was seen gone and everything but the closing PUSH acked */
    uint64_t progress;           /* ms: when snd_una last moved while the application was gone */
    uint32_t progress_una;
    int soft_error;              /* ICMP's word on why the peer may be out of reach: reported instead of ETIMEDOUT */

    struct source oob_source;    /* what epoll reports for: */
    int oob_fd;                  /* the engine's end of the application's socket for datagrams; -1: none */

    struct fec_encoder *encoder; /* NULL: no FEC */
    struct fec_decoder *decoder; /* NULL until the peer is seen to use FEC */

    uint64_t in_pkts, out_pkts;   /* datagrams */
    uint64_t in_bytes, out_bytes; /* of UDP payload */
    uint64_t in_errs;             /* datagrams dropped as malformed */
    uint64_t oob_packets;         /* out-of-band datagrams received */

    struct session *bucket_next;      /* same bucket of the endpoint */
    struct session *next, **link;     /* of the engine's sessions, then of its dead ones */
    struct session *dirty_next;
    uint64_t turned;                  /* ms: its last turn */
};

/* A client's session over `endpoint`, connecting to `peer`; joins `app_fd` to it. 0 or a negative errno. */
int session_connect(struct endpoint *endpoint, const struct address *peer, int app_fd, const struct kcps_config *config,
                    struct session **out);

/* A listener's new session with `peer`, which the first datagram (sent to `local`) opened under `conv`.
 * 0, or a negative errno: -EAGAIN backlog full, -ECONNREFUSED nobody listens. */
int session_accept(struct endpoint *endpoint, const struct address *peer, const struct address *local, uint32_t conv,
                   struct session **out);

/* A datagram's payload for this session, opened; borrowed until the session's turn, which becomes due. */
void session_input(struct session *session, const uint8_t *payload, size_t length, size_t wire_length);

/* ICMP says that the peer could not be reached: `error` is ECONNREFUSED, EHOSTUNREACH ... */
void session_unreachable(struct session *session, int error);

/* The stream has events (as epoll's). */
void session_ready(struct session *session, uint32_t events);

/* Its timer is due. */
void session_timeout(struct session *session);

/* Makes a turn due. */
void session_mark(struct session *session);

/* Moves bytes and packets both ways as far as they go now, and judges whether it is over. */
void session_turn(struct session *session);

/* Takes the application's next bytes, at most KCPS_SEND_MAX, if there is room for all of them and none before them wait in
 * the stream. Returns how many it took: all, none, or fewer when memory ran out. */
size_t session_take(struct session *session, const void *data, size_t length);

/* The application's next bytes, which it left for the engine (post.h). */
void session_put(struct session *session, const void *data, size_t length);

/* The process ends: what the application has written is delivered, as if it had closed. */
void session_finish(struct session *session);

/* The application has closed its last descriptor: nobody reads any more, what it wrote still is delivered. */
void session_orphan(struct session *session);

/* Ends with `error` (an errno): the application gets what arrived before, then the error. */
void session_fail(struct session *session, int error);

/* Puts changed settings (session->config) to work. */
void session_reconfigure(struct session *session);

void session_info(struct session *session, struct kcps_info *info);

/* Adds what the session counted to `totals`, an array of SNMP_COUNT. */
void session_count(const struct session *session, uint64_t *totals);

/* Frees a session that is over; by the engine's thread only. */
void session_free(struct session *session);

#endif
