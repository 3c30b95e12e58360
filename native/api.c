#include "api.h"

#include <errno.h>
#include <sys/socket.h>
#include <string.h>

#include "endpoint.h"
#include "engine.h"
#include "oob.h"
#include "session.h"
#include "session_io.h"
#include "stream.h"

/* --- finding things by id, with the engine locked --- */

struct place { /* what an id names */
    struct engine *engine;
    struct session *session;   /* or ... */
    struct endpoint *endpoint; /* ... the listener's; for a session, the one it uses */
};

/* Locks the engine and finds `id`: 0, or -ESRCH with nothing locked. */
static int enter_place(kcps_id id, struct place *place)
{
    *place = (struct place){.engine = engine_enter_running()};
    if (!place->engine)
        return -ESRCH;
    struct source *source = status_object(place->engine->statuses, id);
    if (!source) {
        engine_leave(place->engine);
        return -ESRCH;
    }
    if (source->kind == SOURCE_SESSION) {
        place->session = (struct session *)source;
        place->endpoint = place->session->endpoint;
    } else {
        place->endpoint = (struct endpoint *)source;
    }
    return 0;
}

/* --- names --- */

int kcps_name(int fd, struct kcps_name *name)
{
    struct stream_label label;
    int result = stream_label_of(fd, &label);
    if (result < 0)
        return result;
    *name = (struct kcps_name){
        .id = label.id,
        .family = label.local.any.sa_family,
        .listening = label.peer.any.sa_family == AF_UNSPEC,
    };
    address_export(&label.local, &name->local);
    if (!name->listening)
        address_export(&label.peer, &name->peer);
    return 0;
}

/* --- connecting and listening --- */

int kcps_connect(int app_fd, int udp_fd, const struct kcps_config *config, kcps_id *id)
{
    struct address peer;
    socklen_t length = sizeof peer;
    memset(&peer, 0, sizeof peer);
    if (getpeername(udp_fd, &peer.any, &length) < 0)
        return -errno;
    int result;
    struct engine *engine = engine_enter(&result);
    if (!engine)
        return result;
    struct endpoint *endpoint;
    result = endpoint_open(engine, udp_fd, true, config, &endpoint);
    if (result == 0) {
        struct session *session;
        result = session_connect(endpoint, &peer, app_fd, config, &session);
        if (result == 0) {
            *id = session->id;
            status_claim(engine->statuses, session->id);
        } else {
            endpoint_abandon(endpoint);
        }
    }
    engine_leave(engine);
    return result;
}

int kcps_listen(int app_fd, int udp_fd, int backlog, const char *directory, const struct kcps_config *config, kcps_id *id)
{
    int result;
    struct engine *engine = engine_enter(&result);
    if (!engine)
        return result;
    struct endpoint *endpoint;
    result = endpoint_open(engine, udp_fd, false, config, &endpoint);
    if (result == 0) {
        result = endpoint_listen(endpoint, app_fd, backlog, directory, config);
        if (result == 0) {
            *id = endpoint->listener->id;
            status_claim(engine->statuses, *id);
        } else {
            endpoint_abandon(endpoint);
        }
    }
    engine_leave(engine);
    return result;
}

int kcps_relisten(int app_fd, int backlog, const char *directory, const struct kcps_config *config, int family,
                  const struct kcps_address *local, kcps_id *id)
{
    struct address address;
    address_import(&address, family, local);
    struct engine *engine = engine_enter_running();
    if (!engine)
        return -ESRCH;
    struct endpoint *endpoint = endpoint_orphan(engine, &address);
    if (endpoint && !endpoint_has_key(endpoint, config)) /* the old sessions need the old one */
        endpoint = NULL;
    int result = endpoint ? endpoint_listen(endpoint, app_fd, backlog, directory, config) : -ESRCH;
    if (result == 0) {
        *id = endpoint->listener->id;
        status_claim(engine->statuses, *id);
    }
    engine_leave(engine);
    return result;
}

bool kcps_can_relisten(int family, const struct kcps_address *local)
{
    struct address address;
    address_import(&address, family, local);
    struct engine *engine = engine_enter_running();
    if (!engine)
        return false;
    bool found = endpoint_orphan(engine, &address) != NULL;
    engine_leave(engine);
    return found;
}

int kcps_listener_check(kcps_id id)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    if (!place.session && place.endpoint->listener && !endpoint_is_heard(place.endpoint))
        endpoint_stop_listening(place.endpoint);
    engine_leave(place.engine);
    return 0;
}

size_t kcps_send(kcps_id id, int app_fd, const void *data, size_t length)
{
    if (length > KCPS_SEND_MAX)
        return 0;
    struct engine *engine = engine_try_enter();
    if (!engine)
        return engine_post(id, app_fd, data, length) ? length : 0;
    struct source *source = status_object(engine->statuses, id);
    size_t taken = 0;
    if (source && source->kind == SOURCE_SESSION)
        taken = session_take((struct session *)source, data, length);
    engine_leave(engine);
    return taken;
}

/* --- what an id's entry says --- */

void kcps_claim(kcps_id id)
{
    struct engine *engine = engine_enter_running();
    if (!engine)
        return;
    status_claim(engine->statuses, id);
    engine_leave(engine);
}

void kcps_forget(kcps_id id)
{
    struct engine *engine = engine_enter_running();
    if (!engine)
        return;
    status_forget(engine->statuses, id);
    engine_leave(engine);
}

int kcps_error(kcps_id id, bool clear)
{
    return status_error(id, clear);
}

enum kcps_phase kcps_phase(kcps_id id)
{
    return status_phase(id);
}

/* --- settings --- */

int kcps_shutdown(kcps_id id, int how)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    if (place.session) {
        place.session->shut |= (uint8_t)how;
        session_tell_taking(place.session);
    }
    engine_leave(place.engine);
    return 0;
}

static struct kcps_config *config_of(const struct place *place)
{
    if (place->session)
        return &place->session->config;
    return &place->endpoint->listener->config;
}

int kcps_get_config(kcps_id id, struct kcps_config *config)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    *config = *config_of(&place);
    engine_leave(place.engine);
    return 0;
}

int kcps_set_config(kcps_id id, const struct kcps_config *config)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    struct kcps_config *mine = config_of(&place), before = *mine;
    *mine = *config;
    mine->crypt = before.crypt;
    mine->key_length = before.key_length;
    memcpy(mine->key, before.key, sizeof mine->key);
    mine->conv = before.conv;
    mine->datashard = before.datashard;
    mine->parityshard = before.parityshard;
    if (place.session)
        session_reconfigure(place.session);
    engine_leave(place.engine);
    return 0;
}

int kcps_udp_getsockopt(kcps_id id, int level, int name, void *value, uint32_t *length)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    socklen_t size = *length;
    result = getsockopt(place.endpoint->udp.fd, level, name, value, &size) == 0 ? 0 : -errno;
    *length = size;
    engine_leave(place.engine);
    return result;
}

int kcps_udp_setsockopt(kcps_id id, int level, int name, const void *value, uint32_t length)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    result = setsockopt(place.endpoint->udp.fd, level, name, value, length) == 0 ? 0 : -errno;
    engine_leave(place.engine);
    return result;
}

/* --- out-of-band datagrams --- */

int kcps_oob_open(kcps_id id)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    result = place.session ? oob_open(place.session) : -ENOTCONN;
    engine_leave(place.engine);
    return result;
}

int kcps_oob_send(kcps_id id, const void *data, size_t length)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    result = place.session ? oob_send(place.session, data, length) : -ENOTCONN;
    engine_leave(place.engine);
    return result;
}

int kcps_oob_limit(kcps_id id)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    result = place.session ? (int)oob_limit(place.session) : -ENOTCONN;
    engine_leave(place.engine);
    return result;
}

/* --- figures --- */

int64_t kcps_unsent(kcps_id id)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    int64_t bytes = 0;
    if (place.session) {
        struct kcp_state state;
        kcp_snapshot(place.session->kcp, &state);
        bytes = (int64_t)(state.snd_end - state.snd_una) * (kcp_settings_of(place.session->kcp)->mtu - 24) +
                (int64_t)(place.session->held_to - place.session->held_from);
    }
    engine_leave(place.engine);
    return bytes;
}

int kcps_info(kcps_id id, struct kcps_info *info)
{
    struct place place;
    int result = enter_place(id, &place);
    if (result < 0)
        return result;
    if (place.session)
        session_info(place.session, info);
    else
        result = -ENOTCONN;
    engine_leave(place.engine);
    return result;
}

int kcps_snmp(uint64_t *values, int limit)
{
    uint64_t totals[SNMP_COUNT] = {0};
    struct engine *engine = engine_enter_running();
    if (engine) {
        memcpy(totals, engine->snmp, sizeof totals);
        for (struct session *session = engine->sessions; session; session = session->next)
            session_count(session, totals);
        totals[SNMP_CURR_ESTAB] = engine->session_count;
        totals[SNMP_IN_ERRS] += engine->truncated;
        engine_leave(engine);
    }
    memcpy(values, totals, (size_t)(limit < SNMP_COUNT ? limit : SNMP_COUNT) * sizeof *values);
    return SNMP_COUNT;
}

const char *kcps_snmp_name(int index)
{
    return engine_snmp_name(index);
}

int kcps_usage(struct kcps_usage *usage)
{
    *usage = (struct kcps_usage){0};
    struct engine *engine = engine_enter_running();
    if (!engine)
        return 0;
    *usage = (struct kcps_usage){
        .sessions = engine->session_count,
        .listeners = engine->listener_count,
        .endpoints = engine->endpoint_count,
        .time_waits = timewait_count(engine->timewaits),
        .pool_bytes = pool_bytes(engine->pool),
        .pool_in_use = (uint32_t)pool_in_use(engine->pool),
    };
    engine_leave(engine);
    return 0;
}

/* --- waiting for ends --- */

int kcps_wait_closed(kcps_id id, uint32_t timeout)
{
    struct engine *engine = engine_enter_running();
    if (!engine)
        return 0;
    uint64_t deadline = engine->now + timeout;
    while (status_object(engine->statuses, id) && engine_wait_ended(engine, deadline))
        continue;
    int result = status_object(engine->statuses, id) ? -EAGAIN : 0;
    engine_leave(engine);
    return result;
}

void kcps_finish_all(void)
{
    struct engine *engine = engine_enter_running();
    if (!engine)
        return;
    for (struct endpoint *endpoint = engine->endpoints, *next; endpoint; endpoint = next) {
        next = endpoint->next;
        endpoint_stop_listening(endpoint);
    }
    for (struct session *session = engine->sessions; session; session = session->next)
        session_finish(session);
    engine_leave(engine);
}

int kcps_drain(uint32_t timeout)
{
    struct engine *engine = engine_enter_running();
    if (!engine)
        return 0;
    uint64_t deadline = engine->now + timeout;
    while (engine->session_count && engine_wait_ended(engine, deadline))
        continue;
    int result = engine->session_count ? -EAGAIN : 0;
    engine_leave(engine);
    return result;
}
