#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "endpoint.h"
#include "oob.h"
#include "outlet.h"
#include "seal.h"
#include "session_io.h"
#include "stream.h"
#include "wire.h"

#define HANDSHAKE_FIRST 200   /* ms until an unanswered WASK is sent again; grows by half ... */
#define HANDSHAKE_MOST 3000   /* ... up to this */
#define FAREWELL 3000         /* ms that a closing PUSH waits for its ACK when all else is done: the peer may be gone,
                                 as TCP's LAST_ACK it can't learn more */
#define ROOM_NEEDLESS 16      /* needless reports of room in the stream that end them */
#define ORPHAN_STALL 120000   /* ms without progress after which data of a closed socket is given up, while the peer
                                 keeps its window shut (Linux gives an orphaned TCP about as long) */

/* --- beginning --- */

static void settings_of(const struct session *session, struct kcp_settings *settings)
{
    const struct kcps_config *config = &session->config;
    *settings = (struct kcp_settings){
        .mtu = config->mtu - outlet_overhead(config),
        .sndwnd = config->sndwnd,
        .rcvwnd = config->rcvwnd,
        .interval = config->interval,
        .resend = config->resend,
        .dead_link = config->dead_link,
        .user_timeout = config->user_timeout,
        .nodelay = config->nodelay,
        .nc = config->nc,
        .bdp_limit = config->bdp_limit,
        .acknodelay = config->acknodelay,
        .fec = config->datashard > 0,
    };
}

static void free_parts(struct session *session)
{
    kcp_free(session->kcp);
    free(session->held);
    fec_encoder_free(session->encoder);
    fec_decoder_free(session->decoder);
}

/* A session that nothing refers to yet. */
static int session_new(struct endpoint *endpoint, const struct address *peer, const struct address *local, uint32_t conv,
                       const struct kcps_config *config, enum kcps_phase phase, struct session **out)
{
    struct engine *engine = endpoint->engine;
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return -ENOMEM;
    *session = (struct session){
        .source = {SOURCE_SESSION},
        .engine = engine,
        .endpoint = endpoint,
        .stream_fd = -1,
        .oob_fd = -1,
        .peer = *peer,
        .local = *local,
        .config = *config,
        .phase = phase,
        .readable = true,
        .writable = true,
        .heard = engine->now,
        .opened = engine->now,
        .probe_at = engine->now,
        .probe_wait = HANDSHAKE_FIRST,
        .progress = engine->now,
    };
    struct kcp_settings settings;
    settings_of(session, &settings);
    session->kcp = kcp_new(conv, &settings, engine->pool, (uint32_t)engine->now);
    if (config->datashard)
        session->encoder = fec_encoder_new(engine->pool, config->datashard, config->parityshard, 0);
    if (session->kcp && (session->encoder || !config->datashard))
        session->id = status_open(engine->statuses, session, phase);
    if (!session->id) {
        free_parts(session);
        free(session);
        return -ENOMEM;
    }
    *out = session;
    return 0;
}

/* Undoes session_new. */
static void session_abandon(struct session *session)
{
    status_close(session->engine->statuses, session->id);
    free_parts(session);
    if (session->stream_fd >= 0)
        close(session->stream_fd);
    free(session);
}

/* The session begins to live: its stream is watched, its endpoint and its engine know it. */
static int session_enlist(struct session *session)
{
    struct engine *engine = session->engine;
    int result = engine_watch(engine, session->stream_fd, &session->source);
    if (result < 0)
        return result;
    if (!endpoint_add(session->endpoint, session)) {
        engine_unwatch(engine, session->stream_fd);
        return -ENOMEM;
    }
    session->link = &engine->sessions;
    session->next = engine->sessions;
    if (session->next)
        session->next->link = &session->next;
    engine->sessions = session;
    engine->session_count++;
    if (engine->session_count > engine->snmp[SNMP_MAX_CONN])
        engine->snmp[SNMP_MAX_CONN] = engine->session_count;
    session_mark(session);
    return 0;
}

static uint32_t random_conv(void)
{
    uint32_t conv = 0;
    while (conv == 0)
        if (getrandom(&conv, sizeof conv, 0) != sizeof conv)
            conv = 0;
    return conv;
}

int session_connect(struct endpoint *endpoint, const struct address *peer, int app_fd, const struct kcps_config *config,
                    struct session **out)
{
    struct session *session;
    uint32_t conv = config->conv ? config->conv : random_conv();
    int result = session_new(endpoint, peer, &endpoint->udp.local, conv, config, KCPS_PHASE_CONNECTING, &session);
    if (result < 0)
        return result;
    struct stream_label label = {session->id, session->local, session->peer};
    session->stream_fd = stream_join(app_fd, &label);
    result = session->stream_fd;
    if (result >= 0) {
        session->stuffing = stream_stuff(app_fd);
        result = session_enlist(session);
    }
    if (result < 0) {
        session_abandon(session);
        return result;
    }
    endpoint->engine->snmp[SNMP_ACTIVE_OPENS]++;
    *out = session;
    return 0;
}

int session_accept(struct endpoint *endpoint, const struct address *peer, const struct address *local, uint32_t conv,
                   struct session **out)
{
    struct session *session;
    const struct listener *listener = endpoint->listener;
    int result = session_new(endpoint, peer, local, conv, &listener->config, KCPS_PHASE_ESTABLISHED, &session);
    if (result < 0)
        return result;
    struct stream_label label = {session->id, session->local, session->peer};
    session->stream_fd = stream_visit(listener->path_fd, &label);
    result = session->stream_fd;
    if (result >= 0)
        result = session_enlist(session);
    if (result < 0) {
        session_abandon(session);
        return result;
    }
    endpoint->engine->snmp[SNMP_PASSIVE_OPENS]++;
    *out = session;
    return 0;
}

static void establish(struct session *session)
{
    session->phase = KCPS_PHASE_ESTABLISHED;
    status_set_phase(session->engine->statuses, session->id, session->phase);
    if (session->probes == 1) /* only one WASK was sent, so this answers it: the first RTT sample */
        kcp_rtt_sample(session->kcp, (uint32_t)(session->engine->now - session->opened));
    session->probes = 0;
    session_unstuff(session);
}

/* --- end --- */

static void send_reset(struct session *session)
{
    uint8_t segment[WIRE_HEADER];
    outlet_send(session, segment, kcp_reset_segment(session->kcp, segment));
}

static void remember(struct session *session)
{
    struct engine *engine = session->engine;
    struct kcp_state state;
    if (session->endpoint->udp.connected)
        return; /* its UDP socket goes with it: the kernel answers what comes late */
    kcp_snapshot(session->kcp, &state);
    struct timewait ended = {
        .owner = session->endpoint,
        .peer = session->peer,
        .conv = state.conv,
        .rcv_nxt = state.rcv_nxt,
        .rcv_wnd = session->config.rcvwnd,
    };
    timewait_add(engine->timewaits, &ended, engine->now);
    if (!timer_armed(&engine->timewait_timer))
        wheel_arm(&engine->wheel, &engine->timewait_timer, engine->now + TIMEWAIT_MS);
}

/* It is over: nothing more will be sent or delivered. */
static void session_end(struct session *session)
{
    struct engine *engine = session->engine;
    if (session->over)
        return;
    session->over = true;
    session->phase = KCPS_PHASE_CLOSED;
    if (session->late)
        send_reset(session);
    remember(session);
    session_count(session, engine->snmp);
    wheel_disarm(&engine->wheel, &session->timer);
    status_close(engine->statuses, session->id);
    engine_unwatch(engine, session->stream_fd);
    close(session->stream_fd);
    session->stream_fd = -1;
    oob_close(session);
    *session->link = session->next;
    if (session->next)
        session->next->link = session->link;
    session->next = engine->dead;
    engine->dead = session;
    engine->session_count--;
    endpoint_remove(session->endpoint, session);
    pthread_cond_broadcast(&engine->ended);
}

void session_fail(struct session *session, int error)
{
    if (session->over || session->failed)
        return;
    if (error == ETIMEDOUT && session->soft_error)
        error = session->soft_error;
    session->failed = true;
    status_set_error(session->engine->statuses, session->id, error);
    status_set_phase(session->engine->statuses, session->id, KCPS_PHASE_CLOSED);
    /* Writers learn at once; readers after what had arrived. */
    shutdown(session->stream_fd, SHUT_RD);
    session->finished = true;
    session_mark(session);
}

void session_free(struct session *session)
{
    free_parts(session);
    free(session);
}

/* --- judging --- */

/* True when the application's half and the peer's are both done with. */
static bool is_complete(struct session *session)
{
    struct engine *engine = session->engine;
    if (session->gone && session->config.linger == 0)
        return true;
    if (!session->finished)
        return false;
    if (kcp_unacked(session->kcp) == 0)
        return session->gone || session->ended;
    if (!session->gone)
        return false;
    if (!kcp_data_acked(session->kcp) || !kcp_peer_finished(session->kcp)) {
        session->gone_at = engine->now;
        return false;
    }
    return engine->now - session->gone_at >= FAREWELL;
}

/* True when the data of an application that is gone has not moved for too long. */
static bool is_stalled(struct session *session)
{
    struct engine *engine = session->engine;
    struct kcp_state state;
    if (!session->gone)
        return false;
    kcp_snapshot(session->kcp, &state);
    if (state.snd_una != session->progress_una) {
        session->progress_una = state.snd_una;
        session->progress = engine->now;
    }
    return engine->now - session->progress >= ORPHAN_STALL;
}

static bool has_undelivered(const struct session *session)
{
    struct iovec piece;
    return !session->deaf && kcp_readable(session->kcp, &piece, 1) > 0;
}

static void judge(struct session *session)
{
    uint32_t now = (uint32_t)session->engine->now;
    if (session->failed) {
        if (!has_undelivered(session) || session->phase == KCPS_PHASE_CONNECTING)
            session_end(session);
    } else if (session->phase == KCPS_PHASE_CONNECTING) {
        if (session->gone)
            session_end(session);
        else if (session->engine->now - session->opened >= session->config.connect_timeout)
            session_fail(session, ETIMEDOUT);
    } else if (is_complete(session)) {
        outlet_flush(session); /* the ACK of the peer's closing PUSH, most of all */
        session_end(session);
    } else if (kcp_peer_restarted(session->kcp, now)) {
        session_fail(session, ECONNRESET);
    } else if (kcp_dead(session->kcp, now) || is_stalled(session)) {
        session->late |= is_stalled(session);
        session_fail(session, ETIMEDOUT);
    }
}

/* --- probes and the timer --- */

static bool wants_keepalive(const struct session *session)
{
    return session->phase == KCPS_PHASE_ESTABLISHED && session->config.keepalive && !session->failed &&
           kcp_unacked(session->kcp) == 0;
}

/* When the next WASK is due by itself. */
static uint64_t probe_time(const struct session *session)
{
    if (session->phase == KCPS_PHASE_CONNECTING)
        return session->probe_at;
    if (!wants_keepalive(session))
        return UINT64_MAX;
    return session->heard + session->config.keepidle + (uint64_t)session->probes * session->config.keepintvl;
}

static void probe(struct session *session)
{
    if (probe_time(session) > session->engine->now)
        return;
    if (session->phase == KCPS_PHASE_CONNECTING) {
        session->probe_at = session->engine->now + session->probe_wait;
        session->probe_wait += session->probe_wait / 2;
        if (session->probe_wait > HANDSHAKE_MOST)
            session->probe_wait = HANDSHAKE_MOST;
    } else if (session->probes >= session->config.keepcnt) {
        session_fail(session, ETIMEDOUT);
        return;
    }
    session->probes++;
    kcp_ask(session->kcp);
    session->flush = true;
    if (session->phase == KCPS_PHASE_ESTABLISHED) { /* idle for long: no group will be completed soon */
        if (session->encoder)
            fec_encoder_rest(session->encoder);
        if (session->decoder)
            fec_decoder_rest(session->decoder);
    }
}

static void arm(struct session *session)
{
    struct engine *engine = session->engine;
    uint64_t at = probe_time(session);
    int64_t wait = session->failed ? -1 : kcp_deadline(session->kcp, (uint32_t)engine->now);
    if (wait >= 0 && engine->now + (uint64_t)wait < at)
        at = engine->now + (uint64_t)wait;
    if (session->phase == KCPS_PHASE_CONNECTING && session->opened + session->config.connect_timeout < at)
        at = session->opened + session->config.connect_timeout;
    if (session->gone && !session->failed && engine->now + FAREWELL < at)
        at = engine->now + FAREWELL;
    /* An armed timer that is early costs one needless turn; moving it at each packet would cost more. */
    if (timer_armed(&session->timer) && session->timer.deadline <= at && session->timer.deadline > engine->now)
        return;
    if (at == UINT64_MAX)
        wheel_disarm(&engine->wheel, &session->timer);
    else
        wheel_arm(&engine->wheel, &session->timer, at > engine->now ? at : engine->now + 1);
}

/* --- what happens to it --- */

void session_mark(struct session *session)
{
    if (session->dirty || session->over)
        return;
    session->dirty = true;
    session->dirty_next = NULL;
    *session->engine->dirty_tail = session;
    session->engine->dirty_tail = &session->dirty_next;
    session->engine->dirty_count++;
}

void session_turn(struct session *session)
{
    if (session->over)
        return;
    if (session->phase == KCPS_PHASE_ESTABLISHED) {
        session_deliver(session);
        if (!kcp_settle(session->kcp))
            session_fail(session, ENOBUFS);
        if (session->decoder)
            fec_decoder_settle(session->decoder);
        session_collect(session);
    }
    probe(session);
    if (session->engine->behind)
        kcp_put_off_timeouts(session->kcp, (uint32_t)session->engine->now);
    if (!session->failed &&
        (session->flush || kcp_deadline(session->kcp, (uint32_t)session->engine->now) == 0))
        outlet_flush(session);
    judge(session);
    if (session->over)
        return;
    if (session->failed && session->phase == KCPS_PHASE_CONNECTING) {
        session_end(session);
        return;
    }
    session_tell_taking(session);
    arm(session);
}

void session_timeout(struct session *session)
{
    session_mark(session);
}

/* A RESET, or ICMP's word that nobody is there. */
static void refuse(struct session *session)
{
    bool settled = session->finished && kcp_data_acked(session->kcp) && kcp_peer_finished(session->kcp);
    if (session->phase == KCPS_PHASE_CONNECTING)
        session_fail(session, ECONNREFUSED);
    else if (settled) /* only the ACK of our closing PUSH was missing: the peer is done, and so are we */
        session_end(session);
    else /* after the peer's end of file there is nothing to be reset for a reader; writers get EPIPE */
        session_fail(session, kcp_peer_finished(session->kcp) ? 0 : ECONNRESET);
}

/* What kcp_input found in a payload, whether it arrived or was recovered. */
static void on_segments(struct session *session, const uint8_t *payload, size_t length, bool recovered)
{
    struct engine *engine = session->engine;
    int found = kcp_input(session->kcp, payload, length, recovered, (uint32_t)engine->now);
    session_mark(session); /* even a bad datagram may have lent payload before it went bad */
    if (found < 0) {
        session->in_errs++;
        return;
    }
    if (found & KCP_IN_OURS) {
        session->heard = engine->now;
        session->soft_error = 0;
        if (session->phase == KCPS_PHASE_CONNECTING && !(found & KCP_IN_RESET))
            establish(session);
        session->probes = 0;
    }
    if (found & KCP_IN_FLUSH)
        session->flush = true;
    if (found & KCP_IN_RESET)
        refuse(session);
}

/* The decoder is made at the first datagram with an FEC header: a peer may use FEC whether or not we do. */
static void on_shard(struct session *session, const uint8_t *datagram, size_t length)
{
    struct kcps_config *config = &session->config;
    if (!session->decoder)
        session->decoder = fec_decoder_new(session->engine->pool, config->datashard, config->parityshard);
    int recovered = session->decoder ? fec_decode(session->decoder, datagram, length) : 0;
    for (int i = 0; i < recovered; i++) {
        size_t recovered_length;
        const uint8_t *payload = fec_recovered(session->decoder, i, &recovered_length);
        on_segments(session, payload, recovered_length, true);
    }
}

void session_input(struct session *session, const uint8_t *payload, size_t length, size_t wire_length)
{
    session->in_pkts++;
    session->in_bytes += wire_length;
    if (session->over || session->failed)
        return;
    int type = fec_type_of(payload, length);
    switch (type) {
    case FEC_NONE:
        on_segments(session, payload, length, false);
        break;
    case FEC_DATA:
        on_segments(session, payload + FEC_HEADER, length - FEC_HEADER, false);
        on_shard(session, payload, length);
        break;
    case FEC_PARITY:
        on_shard(session, payload, length);
        break;
    case FEC_OOB:
        oob_deliver(session, payload + FEC_HEADER, length - FEC_HEADER);
        break;
    default:
        session->in_errs++;
    }
}

void session_unreachable(struct session *session, int error)
{
    if (session->over || session->failed)
        return;
    if (error == ECONNREFUSED)
        refuse(session);
    else if (session->phase == KCPS_PHASE_CONNECTING)
        session_fail(session, error);
    else
        session->soft_error = error; /* a route may come back: as on TCP, no reason to give up yet */
    session_mark(session);
}

void session_orphan(struct session *session)
{
    if (session->gone)
        return;
    session->gone = true;
    session->deaf = true;
    session->late |= session->config.linger == 0; /* SO_LINGER with 0 s: close resets */
    session->gone_at = session->engine->now;
    session->progress = session->engine->now;
}

/* Every read of the application makes room in its stream. One that keeps up reads after each delivery: to be told of all
 * these would cost a turn a message. */
static void on_room(struct session *session)
{
    if (session->writable && session->room_watched && ++session->room_needless == ROOM_NEEDLESS) {
        session->room_watched = false;
        engine_watch_room(session->engine, session->stream_fd, &session->source, false);
    }
    session->writable = true;
}

void session_ready(struct session *session, uint32_t events)
{
    bool news = events != EPOLLOUT || !session->writable;
    if (session->over)
        return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        session->readable = true;
    if (events & EPOLLOUT)
        on_room(session);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        session->eof_near = true;
    if (events & EPOLLHUP) {
        /* The kernel reports a shutdown of both halves just like a close. */
        if (session->shut != 3 && !(session->ended && session->shut & 2)) {
            session->late |= has_undelivered(session);
            session_orphan(session);
        }
    }
    if (news)
        session_mark(session);
}

void session_finish(struct session *session)
{
    if (session->over)
        return;
    session->eof_near = true;
    session->readable = true;
    session_orphan(session);
    shutdown(session->stream_fd, SHUT_RD); /* what was written stays readable; then comes the end of file */
    session_mark(session);
}

void session_reconfigure(struct session *session)
{
    struct kcp_settings settings;
    settings_of(session, &settings);
    kcp_configure(session->kcp, &settings);
    session->flush = true;
    session_mark(session);
}
