#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "endpoint.h"
#include "oob.h"
#include "session.h"
#include "waiting.h"

#define EVENTS 256            /* of one wait */
#define BEHIND_TURNS 64       /* turns in a row in which RTOs are put off because something may wait to be read */
#define REST_MS 5             /* without a turn: a session that has one after that is roused */
#define TRIM_MS 1000          /* how often free packet buffers go back to the system */
#define RESETS_RENEWAL 100    /* ms */
#define RESETS_ALLOWED 100    /* in that time */

static struct engine *current; /* of this process; NULL: none yet */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

static const char *const snmp_names[SNMP_COUNT] = {
    [SNMP_BYTES_SENT] = "BytesSent",
    [SNMP_BYTES_RECEIVED] = "BytesReceived",
    [SNMP_MAX_CONN] = "MaxConn",
    [SNMP_ACTIVE_OPENS] = "ActiveOpens",
    [SNMP_PASSIVE_OPENS] = "PassiveOpens",
    [SNMP_CURR_ESTAB] = "CurrEstab",
    [SNMP_IN_ERRS] = "InErrs",
    [SNMP_IN_CSUM_ERRORS] = "InCsumErrors",
    [SNMP_KCP_IN_ERRORS] = "KCPInErrors",
    [SNMP_IN_PKTS] = "InPkts",
    [SNMP_OUT_PKTS] = "OutPkts",
    [SNMP_IN_SEGS] = "InSegs",
    [SNMP_OUT_SEGS] = "OutSegs",
    [SNMP_IN_BYTES] = "InBytes",
    [SNMP_OUT_BYTES] = "OutBytes",
    [SNMP_RETRANS_SEGS] = "RetransSegs",
    [SNMP_FAST_RETRANS_SEGS] = "FastRetransSegs",
    [SNMP_EARLY_RETRANS_SEGS] = "EarlyRetransSegs",
    [SNMP_LOST_SEGS] = "LostSegs",
    [SNMP_REPEAT_SEGS] = "RepeatSegs",
    [SNMP_FEC_RECOVERED] = "FECRecovered",
    [SNMP_FEC_ERRS] = "FECErrs",
    [SNMP_FEC_PARITY_SHARDS] = "FECParityShards",
    [SNMP_OOB_PACKETS] = "OOBPackets",
};

const char *engine_snmp_name(int index)
{
    return index >= 0 && index < SNMP_COUNT ? snmp_names[index] : NULL;
}

/* --- clock and descriptors --- */

static uint64_t monotonic_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

void engine_read_clock(struct engine *engine)
{
    uint64_t now = monotonic_ms();
    if (now == engine->now)
        return;
    engine->now = now;
    engine->roused_before = engine->roused;
    engine->roused = 0;
}

#define STREAM_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

int engine_watch(struct engine *engine, int fd, struct source *source)
{
    struct epoll_event event = {
        .events = source->kind == SOURCE_SESSION ? STREAM_EVENTS : EPOLLIN,
        .data.ptr = source,
    };
    return epoll_ctl(engine->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void engine_watch_room(struct engine *engine, int fd, struct source *source, bool room)
{
    struct epoll_event event = {.events = STREAM_EVENTS | (room ? EPOLLOUT : 0), .data.ptr = source};
    epoll_ctl(engine->epoll_fd, EPOLL_CTL_MOD, fd, &event); /* of what is watched: can't fail */
}

void engine_unwatch(struct engine *engine, int fd)
{
    epoll_ctl(engine->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

bool engine_may_reset(struct engine *engine)
{
    if (engine->now - engine->resets_renewed >= RESETS_RENEWAL) {
        engine->resets_renewed = engine->now;
        engine->resets_left = RESETS_ALLOWED;
    }
    return engine->resets_left && engine->resets_left--;
}

/* --- a turn --- */

void engine_run_dirty(struct engine *engine)
{
    /* A session that marks itself in its turn waits for the next run: the network comes first. */
    for (uint32_t left = engine->dirty_count; left && engine->dirty; left--) {
        struct session *session = engine->dirty;
        engine->dirty = session->dirty_next;
        if (!engine->dirty)
            engine->dirty_tail = &engine->dirty;
        engine->dirty_count--;
        session->dirty = false;
        engine->roused += engine->now - session->turned > REST_MS;
        session->turned = engine->now;
        session_turn(session);
    }
    udp_batch_send(engine->outbox);
    engine_read_clock(engine);
}

static void run_timers(struct engine *engine)
{
    struct timer *timer;
    while ((timer = wheel_expire(&engine->wheel, engine->now))) {
        if (timer == &engine->timewait_timer) {
            uint64_t next = timewait_expire(engine->timewaits, engine->now);
            if (next != UINT64_MAX)
                wheel_arm(&engine->wheel, timer, next);
            continue;
        }
        session_timeout((struct session *)((char *)timer - offsetof(struct session, timer)));
    }
}

static void dispatch(struct engine *engine, const struct epoll_event *event)
{
    struct source *source = event->data.ptr;
    uint64_t count;
    switch (source->kind) {
    case SOURCE_WAKE:
        if (read(engine->wake_fd, &count, sizeof count) < 0)
            return; /* somebody else's wake-up was in the one just read */
        break;
    case SOURCE_ENDPOINT:
        endpoint_ready((struct endpoint *)source, event->events);
        break;
    case SOURCE_SESSION:
        session_ready((struct session *)source, event->events);
        break;
    case SOURCE_OOB:
        oob_ready((struct session *)((char *)source - offsetof(struct session, oob_source)), event->events);
        break;
    }
}

static void free_dead(struct engine *engine)
{
    struct session **link = &engine->dead;
    while (*link) {
        struct session *session = *link;
        if (session->dirty) { /* still on that list: its turn, which does nothing, takes it off */
            link = &session->next;
            continue;
        }
        *link = session->next;
        session_free(session);
    }
    while (engine->dead_endpoints) {
        struct endpoint *endpoint = engine->dead_endpoints;
        engine->dead_endpoints = endpoint->next;
        endpoint_free(endpoint);
    }
}

static void lock(struct engine *engine)
{
    pthread_mutex_lock(&engine->gate);
    pthread_mutex_lock(&engine->lock);
    pthread_mutex_unlock(&engine->gate);
    engine_read_clock(engine);
}

/* --- what callers leave --- */

static void put(void *context, kcps_id id, const void *data, size_t length)
{
    struct engine *engine = context;
    struct source *source = status_object(engine->statuses, id);
    if (source && source->kind == SOURCE_SESSION)
        session_put((struct session *)source, data, length);
}

void engine_hold_post(struct engine *engine)
{
    post_hold(engine->post, put, engine);
}

void engine_release_post(struct engine *engine)
{
    post_release(engine->post);
}

static void take_post(struct engine *engine)
{
    if (post_waits(engine->post))
        post_take(engine->post, put, engine);
}

/* --- the thread --- */

/* How long the thread may wait, in ms: -1 for ever. */
static int patience(struct engine *engine)
{
    if (engine->dirty || engine->dead || engine->dead_endpoints) {
        engine->wakes_at = engine->now;
        return 0;
    }
    engine->wakes_at = wheel_next(&engine->wheel);
    if (engine->wakes_at == UINT64_MAX)
        return -1;
    if (engine->wakes_at <= engine->now)
        return 0;
    uint64_t wait = engine->wakes_at - engine->now;
    return wait < 60000 ? (int)wait : 60000;
}

static void *run(void *argument)
{
    struct engine *engine = argument;
    struct epoll_event events[EVENTS];
    struct waiter waiter = {0};
    uint64_t trimmed = 0;
    int count = 0, behind = 0;
    lock(engine);
    for (;;) {
        engine->behind = count == EVENTS;
        for (int i = 0; i < count; i++)
            dispatch(engine, &events[i]);
        take_post(engine);
        behind = engine->behind ? behind + 1 : 0;
        if (behind > BEHIND_TURNS)
            engine->behind = false;
        run_timers(engine);
        engine_run_dirty(engine);
        /* Every event of this wait has been looked at: nothing points at the dead any more. */
        free_dead(engine);
        if (engine->now - trimmed >= TRIM_MS) {
            pool_trim(engine->pool);
            trimmed = engine->now;
        }
        int timeout = patience(engine);
        uint32_t roused = engine->roused > engine->roused_before ? engine->roused : engine->roused_before;
        atomic_store(&engine->asleep, true);
        if (post_waits(engine->post))
            timeout = 0;
        pthread_mutex_unlock(&engine->lock);
        count = wait_for_events(&waiter, engine->epoll_fd, events, EVENTS, timeout, roused);
        lock(engine);
        atomic_store(&engine->asleep, false);
    }
    return NULL;
}

/* --- start --- */

static void destroy(struct engine *engine)
{
    if (engine->epoll_fd >= 0)
        close(engine->epoll_fd);
    if (engine->wake_fd >= 0)
        close(engine->wake_fd);
    if (engine->pool)
        pool_free(engine->pool);
    if (engine->inbox)
        udp_inbox_free(engine->inbox);
    if (engine->outbox)
        udp_batch_free(engine->outbox);
    if (engine->timewaits)
        timewait_free(engine->timewaits);
    post_free(engine->post);
    free(engine);
}

static int start_thread(struct engine *engine)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the thread inherits it: signals are the application's */
    int error = pthread_create(&engine->thread, NULL, run, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return -error;
    pthread_setname_np(engine->thread, "kcpsocket");
    pthread_detach(engine->thread);
    return 0;
}

static struct engine *start(int *error)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine) {
        *error = -ENOMEM;
        return NULL;
    }
    pthread_mutexattr_t adaptive; /* held for microseconds: to spin is cheaper than to be woken */
    pthread_mutexattr_init(&adaptive);
    pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&engine->gate, &adaptive);
    pthread_mutex_init(&engine->lock, &adaptive);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->ended, &monotonic);
    engine->wake.kind = SOURCE_WAKE;
    engine->dirty_tail = &engine->dirty;
    engine->wakes_at = UINT64_MAX;
    engine_read_clock(engine);
    wheel_init(&engine->wheel, engine->now);
    engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    *error = -errno;
    if (engine->epoll_fd >= 0 && engine->wake_fd >= 0) {
        *error = -ENOMEM;
        engine->pool = pool_new();
        engine->inbox = udp_inbox_new();
        engine->outbox = udp_batch_new();
        engine->statuses = status_table_new();
        engine->post = post_new();
        if (getrandom(&engine->seed, sizeof engine->seed, 0) == sizeof engine->seed)
            engine->timewaits = timewait_new(engine->seed);
        if (engine->pool && engine->inbox && engine->outbox && engine->statuses && engine->post && engine->timewaits)
            *error = engine_watch(engine, engine->wake_fd, &engine->wake);
    }
    if (*error == 0)
        *error = start_thread(engine);
    if (*error == 0)
        return engine;
    destroy(engine);
    return NULL;
}

/* --- fork --- */

static void before_fork(void)
{
    pthread_mutex_lock(&starting);
    if (current)
        lock(current);
}

static void after_fork_in_parent(void)
{
    if (current)
        pthread_mutex_unlock(&current->lock);
    pthread_mutex_unlock(&starting);
}

static void close_copies(const struct session *session)
{
    close(session->stream_fd);
    if (session->oob_fd >= 0)
        close(session->oob_fd);
}

/* The child has the engine's descriptors, without its thread: while it keeps them, the parent's sessions can't see ends
 * of file and its ports stay taken. Their memory stays as it is, nothing will look at it again. */
static void after_fork_in_child(void)
{
    if (current) {
        close(current->epoll_fd);
        close(current->wake_fd);
        for (struct session *session = current->sessions; session; session = session->next)
            close_copies(session);
        for (struct endpoint *endpoint = current->endpoints; endpoint; endpoint = endpoint->next) {
            close(endpoint->udp.fd);
            if (endpoint->listener)
                close(endpoint->listener->path_fd);
        }
        current = NULL;
    }
    pthread_mutex_init(&starting, NULL);
}

/* --- enter and leave --- */

struct engine *engine_enter(int *error)
{
    static bool prepared;
    *error = 0;
    pthread_mutex_lock(&starting);
    if (!prepared) {
        *error = -pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
        prepared = *error == 0;
    }
    if (*error == 0 && !current)
        current = start(error);
    struct engine *engine = current;
    pthread_mutex_unlock(&starting);
    if (*error != 0)
        return NULL;
    lock(engine);
    take_post(engine);
    return engine;
}

struct engine *engine_enter_running(void)
{
    pthread_mutex_lock(&starting);
    struct engine *engine = current;
    pthread_mutex_unlock(&starting);
    if (engine) {
        lock(engine);
        take_post(engine);
    }
    return engine;
}

struct engine *engine_try_enter(void)
{
    struct engine *engine = NULL;
    if (pthread_mutex_trylock(&starting) != 0)
        return NULL;
    if (current && pthread_mutex_trylock(&current->gate) == 0) {
        if (pthread_mutex_trylock(&current->lock) == 0)
            engine = current;
        pthread_mutex_unlock(&current->gate);
    }
    pthread_mutex_unlock(&starting);
    if (engine) {
        engine_read_clock(engine);
        take_post(engine);
    }
    return engine;
}

static void wake(struct engine *engine)
{
    uint64_t one = 1;
    if (write(engine->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        abort(); /* can't be: an eventfd of our own, and EAGAIN means that the wake-up is pending already */
}

void engine_leave(struct engine *engine)
{
    engine_run_dirty(engine);
    if (engine->dirty || engine->dead || wheel_next(&engine->wheel) < engine->wakes_at)
        wake(engine);
    pthread_mutex_unlock(&engine->lock);
}

bool engine_post(kcps_id id, int app_fd, const void *data, size_t length)
{
    pthread_mutex_lock(&starting);
    struct engine *engine = current;
    pthread_mutex_unlock(&starting);
    if (!engine || !status_taking(engine->statuses, id) || !post_leave(engine->post, id, app_fd, data, length))
        return false;
    if (atomic_load(&engine->asleep))
        wake(engine);
    return true;
}

bool engine_wait_ended(struct engine *engine, uint64_t deadline)
{
    engine_run_dirty(engine);
    wake(engine);
    struct timespec until = {(time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000};
    int result = pthread_cond_timedwait(&engine->ended, &engine->lock, &until);
    engine_read_clock(engine);
    return result != ETIMEDOUT;
}
