/* Sends that spare the application's stream: done at once by a caller, or left by it for the engine (post.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kcp.h"
#include "session_io.h"

/* True when there is room for `length` bytes, and the application has not ended its half. */
static bool may_take(const struct session *session, size_t length)
{
    return session->phase == KCPS_PHASE_ESTABLISHED && !session->over && !session->failed && !session->finished &&
           !session->eof_near && !session->stuffing && !(session->shut & 2) && !session->held &&
           kcp_room(session->kcp) >= length;
}

void session_tell_taking(struct session *session)
{
    bool taking = may_take(session, KCPS_SEND_MAX);
    if (taking == session->taking)
        return;
    session->taking = taking;
    status_set_taking(session->engine->statuses, session->id, taking);
}

size_t session_take(struct session *session, const void *data, size_t length)
{
    int waiting;
    if (!may_take(session, length) || ioctl(session->stream_fd, FIONREAD, &waiting) < 0 || waiting > 0)
        return 0;
    size_t taken = kcp_send(session->kcp, data, length);
    session->flush |= taken > 0;
    session_mark(session);
    return taken;
}

/* Keeps what has no room in the send window. */
static void keep(struct session *session, const uint8_t *data, size_t length)
{
    size_t kept = session->held_to - session->held_from;
    uint8_t *held = malloc(kept + length);
    if (!held) { /* it was accepted, so it must not get lost in silence */
        session_fail(session, ENOBUFS);
        return;
    }
    if (kept)
        memcpy(held, session->held + session->held_from, kept);
    memcpy(held + kept, data, length);
    free(session->held);
    session->held = held;
    session->held_from = 0;
    session->held_to = kept + length;
}

void session_put(struct session *session, const void *data, size_t length)
{
    if (session->over || session->failed)
        return;
    size_t taken = session->held ? 0 : kcp_send(session->kcp, data, length);
    if (taken < length)
        keep(session, (const uint8_t *)data + taken, length - taken);
    session->flush = true;
    session_mark(session);
}

bool session_release_held(struct session *session)
{
    if (!session->held)
        return true;
    size_t taken = kcp_send(session->kcp, session->held + session->held_from, session->held_to - session->held_from);
    session->held_from += taken;
    session->flush |= taken > 0;
    if (session->held_from < session->held_to)
        return false;
    free(session->held);
    session->held = NULL;
    session->held_from = session->held_to = 0;
    return true;
}
