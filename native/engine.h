/* The engine: one thread, its clock, its timers, its descriptors and everything that lives on them.
 *
 *   api.c ──────┐ (any thread, under the lock; small sends that find it taken: into the post, see post.h)
 *               ▼
 *   engine ── endpoint (a UDP socket) ── session (ARQ and application's stream)
 *     thread      └─ listener
 *
 * One lock guards all of it. The engine's thread holds it for a turn (a batch of events and what follows from them) and
 * lets go of it to wait; calls of the API take it, do their work in the caller's thread and leave the engine settled:
 * nothing dirty, nothing unsent. Memory that an event may still point at is freed by the engine's thread alone,
 * between two waits. */
#ifndef KCPSOCKET_ENGINE_H
#define KCPSOCKET_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "pool.h"
#include "post.h"
#include "status.h"
#include "timewait.h"
#include "udp.h"
#include "wheel.h"

enum source_kind { SOURCE_WAKE, SOURCE_ENDPOINT, SOURCE_SESSION, SOURCE_OOB };

struct source { /* first member of whatever epoll reports */
    enum source_kind kind;
};

enum snmp { /* process-wide counters, under kcp-go's names; see snmp_names in engine.c */
    SNMP_BYTES_SENT,
    SNMP_BYTES_RECEIVED,
    SNMP_MAX_CONN,
    SNMP_ACTIVE_OPENS,
    SNMP_PASSIVE_OPENS,
    SNMP_CURR_ESTAB,
    SNMP_IN_ERRS,
    SNMP_IN_CSUM_ERRORS,
    SNMP_KCP_IN_ERRORS,
    SNMP_IN_PKTS,
    SNMP_OUT_PKTS,
    SNMP_IN_SEGS,
    SNMP_OUT_SEGS,
    SNMP_IN_BYTES,
    SNMP_OUT_BYTES,
    SNMP_RETRANS_SEGS,
    SNMP_FAST_RETRANS_SEGS,
    SNMP_EARLY_RETRANS_SEGS,
    SNMP_LOST_SEGS,
    SNMP_REPEAT_SEGS,
    SNMP_FEC_RECOVERED,
    SNMP_FEC_ERRS,
    SNMP_FEC_PARITY_SHARDS,
    SNMP_OOB_PACKETS,
    SNMP_COUNT,
};

struct session;
struct endpoint;

struct engine {
    pthread_mutex_t gate, lock; /* the lock, and a gate before it that makes waiting for it fair */
    pthread_cond_t ended;       /* a session has ended */
    pthread_t thread;
    int epoll_fd, wake_fd;      /* wake_fd: an eventfd that ends the thread's wait */
    struct source wake;         /* what epoll reports for it */
    uint64_t now;               /* ms since the engine started; read once a turn, and after sending */
    uint64_t wakes_at;          /* when the thread's wait ends by itself */
    uint64_t seed;              /* of hashes */

    struct wheel wheel;             /* sessions' timers, and: */
    struct timer timewait_timer;
    struct pool *pool;
    struct udp_inbox *inbox;
    struct udp_batch *outbox;
    struct status_table *statuses;
    struct timewait_table *timewaits;
    struct post *post;              /* what callers leave while the lock is taken */
    _Atomic bool asleep;            /* the thread waits, or is about to: who leaves something must wake it */

    struct session *sessions;       /* all that live */
    struct endpoint *endpoints;     /* all that live */
    struct session *dirty;          /* those with a turn due, first to last */
    struct session **dirty_tail;
    uint32_t dirty_count;
    bool behind;                    /* what has arrived may wait to be read: nothing is to be taken for lost */
    uint32_t roused, roused_before; /* sessions that had a turn after a rest: in this ms, in the one before */
    struct session *dead;           /* over, to be freed */
    struct endpoint *dead_endpoints;
    uint32_t session_count, endpoint_count, listener_count;
    bool finishing;                 /* the process is about to end */
    uint32_t resets_left;           /* RESETs to strangers that may still be sent before `resets_renewed` + 100 ms */
    uint64_t resets_renewed;

    uint64_t snmp[SNMP_COUNT];      /* what ended sessions and the engine itself counted */
    uint64_t truncated;             /* datagrams larger than the inbox takes */
};

/* The engine of this process, locked, its clock read; started if there is none. NULL with *error when it can't be. */
struct engine *engine_enter(int *error);

/* The same, but NULL when no engine runs in this process. */
struct engine *engine_enter_running(void);

/* The same, but NULL as well when the lock is not free at once. */
struct engine *engine_try_enter(void);

/* Gives dirty sessions their turn, sends, and lets go of the lock. Timers are left to the engine's thread, which looks at
 * what has arrived first. */
void engine_leave(struct engine *engine);

/* Leaves the bytes for session `id` (see post_leave); false if it can't be. Needs no lock. */
bool engine_post(kcps_id id, int app_fd, const void *data, size_t length);

/* Passes what was left on to its sessions, and lets nothing be left until engine_release_post. */
void engine_hold_post(struct engine *engine);
void engine_release_post(struct engine *engine);

/* As engine_leave and engine_enter around a wait for some session's end, at most until `deadline` (ms on the engine's
 * clock); false when it passed. */
bool engine_wait_ended(struct engine *engine, uint64_t deadline);

/* Watches `fd`: edge-triggered for sessions' streams, level-triggered for all else. 0 or a negative errno. */
int engine_watch(struct engine *engine, int fd, struct source *source);

/* Whether to watch a session's stream for room to write, too. If there is room now, that is an event. */
void engine_watch_room(struct engine *engine, int fd, struct source *source, bool room);
void engine_unwatch(struct engine *engine, int fd);

/* Gives every dirty session its turn, until none is dirty. */
void engine_run_dirty(struct engine *engine);

/* Reads the clock again: after a batch went out, so that RTT samples don't include our own work. */
void engine_read_clock(struct engine *engine);

/* True when a RESET to a stranger may be sent now; they are rationed, a flood must not be answered in kind. */
bool engine_may_reset(struct engine *engine);

const char *engine_snmp_name(int index);

#endif
