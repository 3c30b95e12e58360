#include "endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "outlet.h"
#include "seal.h"
#include "stream.h"
#include "wire.h"

#define RECEIVE_ROUNDS 32    /* batches a turn, so that one socket does not starve the others */
#define BUCKETS_FIRST 16

/* --- life --- */

int endpoint_open(struct engine *engine, int udp_fd, bool connected, const struct kcps_config *config,
                  struct endpoint **out)
{
    struct endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint)
        return -ENOMEM;
    endpoint->source.kind = SOURCE_ENDPOINT;
    endpoint->engine = engine;
    endpoint->buckets = &endpoint->single;
    endpoint->bucket_count = 1;
    endpoint->config = *config;
    int result = seal_new(&endpoint->seal, config->crypt, config->key, config->key_length);
    if (result == 0)
        result = udp_adopt(&endpoint->udp, udp_fd, connected, config->sockbuf, config->dscp);
    if (result == 0)
        result = engine_watch(engine, udp_fd, &endpoint->source);
    if (result < 0) {
        endpoint_free(endpoint);
        return result;
    }
    endpoint->link = &engine->endpoints;
    endpoint->next = engine->endpoints;
    if (endpoint->next)
        endpoint->next->link = &endpoint->next;
    engine->endpoints = endpoint;
    engine->endpoint_count++;
    *out = endpoint;
    return 0;
}

/* Takes the endpoint off the engine: it waits to be freed. */
static void retire(struct endpoint *endpoint)
{
    struct engine *engine = endpoint->engine;
    endpoint->closed = true;
    engine_unwatch(engine, endpoint->udp.fd);
    timewait_drop(engine->timewaits, endpoint);
    *endpoint->link = endpoint->next;
    if (endpoint->next)
        endpoint->next->link = endpoint->link;
    endpoint->next = engine->dead_endpoints;
    engine->dead_endpoints = endpoint;
    engine->endpoint_count--;
}

void endpoint_abandon(struct endpoint *endpoint)
{
    retire(endpoint);
}

void endpoint_release(struct endpoint *endpoint)
{
    if (endpoint->session_count || endpoint->listener || endpoint->closed)
        return;
    udp_batch_send(endpoint->engine->outbox); /* last words may still wait there */
    retire(endpoint);
    close(endpoint->udp.fd);
}

void endpoint_free(struct endpoint *endpoint)
{
    if (endpoint->buckets != &endpoint->single)
        free(endpoint->buckets);
    seal_free(endpoint->seal);
    explicit_bzero(&endpoint->config, sizeof endpoint->config);
    free(endpoint);
}

bool endpoint_has_key(const struct endpoint *endpoint, const struct kcps_config *config)
{
    return endpoint->config.crypt == config->crypt && endpoint->config.key_length == config->key_length &&
           memcmp(endpoint->config.key, config->key, config->key_length) == 0;
}

struct endpoint *endpoint_orphan(struct engine *engine, const struct address *local)
{
    struct endpoint *endpoint = engine->endpoints;
    while (endpoint && (endpoint->listener || endpoint->udp.connected || !address_equal(&endpoint->udp.local, local)))
        endpoint = endpoint->next;
    return endpoint;
}

/* --- its sessions --- */

static struct session **bucket_of(const struct endpoint *endpoint, const struct address *peer)
{
    if (endpoint->bucket_count == 1)
        return endpoint->buckets;
    return &endpoint->buckets[address_hash(peer, endpoint->engine->seed) & (endpoint->bucket_count - 1)];
}

static bool grow(struct endpoint *endpoint)
{
    uint32_t old_count = endpoint->bucket_count;
    struct session **old = endpoint->buckets;
    uint32_t count = old_count == 1 ? BUCKETS_FIRST : old_count * 2;
    struct session **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return false;
    endpoint->buckets = buckets;
    endpoint->bucket_count = count;
    for (uint32_t i = 0; i < old_count; i++) {
        for (struct session *session = old[i], *next; session; session = next) {
            struct session **bucket = bucket_of(endpoint, &session->peer);
            next = session->bucket_next;
            session->bucket_next = *bucket;
            *bucket = session;
        }
    }
    if (old != &endpoint->single)
        free(old);
    return true;
}

bool endpoint_add(struct endpoint *endpoint, struct session *session)
{
    if (!endpoint->udp.connected && endpoint->session_count >= endpoint->bucket_count && !grow(endpoint))
        return false;
    struct session **bucket = bucket_of(endpoint, &session->peer);
    session->bucket_next = *bucket;
    *bucket = session;
    endpoint->session_count++;
    return true;
}

void endpoint_remove(struct endpoint *endpoint, struct session *session)
{
    struct session **link = bucket_of(endpoint, &session->peer);
    while (*link != session)
        link = &(*link)->bucket_next;
    *link = session->bucket_next;
    endpoint->session_count--;
    endpoint_release(endpoint);
}

static struct session *find(const struct endpoint *endpoint, const struct address *peer, uint32_t conv)
{
    struct session *session = *bucket_of(endpoint, peer);
    while (session && (kcp_conv(session->kcp) != conv ||
                       !(endpoint->udp.connected || address_equal(&session->peer, peer))))
        session = session->bucket_next;
    return session;
}

static struct session *find_peer(const struct endpoint *endpoint, const struct address *peer)
{
    struct session *session = *bucket_of(endpoint, peer);
    while (session && !(endpoint->udp.connected || address_equal(&session->peer, peer)))
        session = session->bucket_next;
    return session;
}

/* --- listening --- */

int endpoint_listen(struct endpoint *endpoint, int app_fd, int backlog, const char *directory,
                    const struct kcps_config *config)
{
    struct engine *engine = endpoint->engine;
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return -ENOMEM;
    listener->config = *config;
    listener->id = status_open(engine->statuses, endpoint, KCPS_PHASE_LISTENING);
    if (!listener->id) {
        free(listener);
        return -ENOMEM;
    }
    struct stream_label label = {.id = listener->id, .local = endpoint->udp.local};
    listener->path_fd = stream_listen(app_fd, &label, backlog, directory);
    if (listener->path_fd < 0) {
        int error = listener->path_fd;
        status_close(engine->statuses, listener->id);
        free(listener);
        return error;
    }
    endpoint->listener = listener;
    engine->listener_count++;
    return 0;
}

void endpoint_stop_listening(struct endpoint *endpoint)
{
    struct listener *listener = endpoint->listener;
    if (!listener)
        return;
    endpoint->listener = NULL;
    endpoint->engine->listener_count--;
    status_close(endpoint->engine->statuses, listener->id);
    close(listener->path_fd);
    free(listener);
    endpoint_release(endpoint);
}

bool endpoint_is_heard(struct endpoint *endpoint)
{
    int fd = stream_visit(endpoint->listener->path_fd, NULL);
    if (fd >= 0)
        close(fd);
    return fd != -ECONNREFUSED;
}

/* --- datagrams --- */

/* True for a datagram with which a client begins: whole segments, the first a WASK or the first PUSH of a side that has
 * sent and received nothing yet. (A later PUSH of a stock client whose first was lost waits for that one; one of ours
 * has shaken hands before, so it belongs to a session that is gone.) Random bytes pass with a probability below 2^-90. */
static bool is_opening(const uint8_t *data, size_t length)
{
    bool first = true;
    while (length >= WIRE_HEADER) {
        struct wire_segment segment;
        wire_decode(&segment, data);
        if (segment.len > length - WIRE_HEADER || segment.cmd < WIRE_PUSH || segment.cmd > WIRE_WINS)
            return false;
        if (first && (segment.una || segment.sn || (segment.cmd != WIRE_PUSH && segment.cmd != WIRE_WASK)))
            return false;
        first = false;
        data += WIRE_HEADER + segment.len;
        length -= WIRE_HEADER + segment.len;
    }
    return length == 0 && !first;
}

/* A datagram of no living session, whose KCP part begins at `segments`: it may open one, belong to one that ended, or
 * deserve a RESET. */
static void on_stranger(struct endpoint *endpoint, const struct udp_datagram *datagram, const uint8_t *payload,
                        size_t length, const uint8_t *segments)
{
    struct engine *engine = endpoint->engine;
    uint8_t reply[512];
    uint32_t conv = wire_get32(segments);
    size_t segments_length = (size_t)(payload + length - segments);
    struct timewait *ended = timewait_find(engine->timewaits, endpoint, &datagram->peer, conv, engine->now);
    if (!ended && endpoint->listener && is_opening(segments, segments_length)) {
        struct session *session;
        int result = session_accept(endpoint, &datagram->peer, &datagram->local, conv, &session);
        if (result == 0)
            session_input(session, payload, length, datagram->length);
        if (result != -ECONNREFUSED) /* backlog full, or out of descriptors or memory: the client will ask again */
            return;
        endpoint_stop_listening(endpoint); /* its last descriptor was closed without a word to us */
    }
    size_t replied = ended ? timewait_answer(ended, segments, segments_length, reply, sizeof reply)
                           : kcp_reset_answer(segments, segments_length, reply);
    /* Ended sessions are few, and their peers wait for these words; strangers' RESETs are rationed. */
    if (replied && !endpoint->closed && (ended || engine_may_reset(engine)))
        outlet_answer(endpoint, &datagram->peer, &datagram->local, reply, replied);
}

/* The session that an opened datagram belongs to. One of FEC's parity has no conv, so it goes to the peer's latest
 * session, as in kcp-go. NULL with *segments set to where its first segment is: a stranger's. */
static struct session *route(const struct endpoint *endpoint, const struct address *peer, const uint8_t *payload,
                             size_t length, const uint8_t **segments)
{
    *segments = NULL;
    switch (fec_type_of(payload, length)) {
    case FEC_NONE:
        *segments = length >= WIRE_HEADER ? payload : NULL;
        break;
    case FEC_DATA:
        *segments = length >= FEC_HEADER + WIRE_HEADER ? payload + FEC_HEADER : NULL;
        break;
    case FEC_PARITY:
        return find_peer(endpoint, peer);
    case FEC_OOB:
        return length >= FEC_HEADER + 4 ? find(endpoint, peer, wire_get32(payload + FEC_HEADER)) : NULL;
    }
    return *segments ? find(endpoint, peer, wire_get32(*segments)) : NULL;
}

static void on_datagram(void *context, struct udp_datagram *datagram)
{
    struct endpoint *endpoint = context;
    struct engine *engine = endpoint->engine;
    uint8_t *payload;
    const uint8_t *segments;
    size_t length;
    if (endpoint->closed)
        return;
    int result = seal_open(endpoint->seal, datagram->data, datagram->length, &payload, &length);
    if (result < 0) {
        engine->snmp[result == -EBADMSG ? SNMP_IN_CSUM_ERRORS : SNMP_IN_ERRS]++;
        return;
    }
    struct session *session = route(endpoint, &datagram->peer, payload, length, &segments);
    if (session)
        session_input(session, payload, length, datagram->length);
    else if (segments)
        on_stranger(endpoint, datagram, payload, length, segments);
    else
        engine->snmp[SNMP_IN_ERRS]++;
}

/* ICMP reports concern every session with that peer. */
static void on_errors(struct endpoint *endpoint)
{
    struct address peer;
    int error;
    while (!endpoint->closed && udp_next_error(&endpoint->udp, &peer, &error)) {
        if (error != ECONNREFUSED && error != EHOSTUNREACH && error != ENETUNREACH)
            continue;
        for (struct session *session = *bucket_of(endpoint, &peer), *next; session; session = next) {
            next = session->bucket_next;
            if (endpoint->udp.connected || address_equal(&session->peer, &peer))
                session_unreachable(session, error);
        }
    }
}

void endpoint_ready(struct endpoint *endpoint, uint32_t events)
{
    struct engine *engine = endpoint->engine;
    if (events & EPOLLERR && !endpoint->closed)
        on_errors(endpoint);
    bool more = true;
    for (int round = 0; more && round < RECEIVE_ROUNDS && !endpoint->closed; round++) {
        more = udp_receive(engine->inbox, &endpoint->udp, engine->now, &engine->truncated, on_datagram, endpoint);
        engine->behind |= more;
        engine_run_dirty(engine); /* before the next batch takes the inbox's memory */
    }
}
