#include "oob.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "outlet.h"
#include "session.h"

#define CONV_BYTES 4
#define SENDS_A_TURN 64

size_t oob_limit(const struct session *session)
{
    return session->encoder ? kcp_settings_of(session->kcp)->mtu - CONV_BYTES : 0;
}

static int check(const struct session *session)
{
    if (!session->encoder)
        return -EOPNOTSUPP;
    if (session->phase != KCPS_PHASE_ESTABLISHED || session->failed || session->over)
        return -ENOTCONN;
    return 0;
}

int oob_send(struct session *session, const void *data, size_t length)
{
    int result = check(session);
    if (result == 0 && length > oob_limit(session))
        result = -EMSGSIZE;
    if (result == 0)
        outlet_oob(session, data, length);
    return result;
}

int oob_open(struct session *session)
{
    int ends[2], result = check(session);
    oob_ready(session, 0); /* the former one may have been closed a moment ago */
    if (result == 0 && session->oob_fd >= 0)
        result = -EBUSY;
    if (result < 0)
        return result;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    session->oob_source.kind = SOURCE_OOB;
    result = fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno
                                                     : engine_watch(session->engine, ends[0], &session->oob_source);
    if (result < 0) {
        close(ends[0]);
        close(ends[1]);
        return result;
    }
    session->oob_fd = ends[0];
    return ends[1];
}

void oob_deliver(struct session *session, const uint8_t *data, size_t length)
{
    session->oob_packets++;
    /* An empty one would read as an end of file. One that finds no room is lost, like any other on its way. */
    if (session->oob_fd >= 0 && length > CONV_BYTES)
        (void)!send(session->oob_fd, data + CONV_BYTES, length - CONV_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void oob_ready(struct session *session, uint32_t events)
{
    uint8_t datagram[2048];
    for (int i = 0; i < SENDS_A_TURN && session->oob_fd >= 0; i++) {
        ssize_t n = recv(session->oob_fd, datagram, sizeof datagram, MSG_DONTWAIT | MSG_TRUNC);
        if (n > 0)
            (void)oob_send(session, datagram, (size_t)n); /* one over the limit is dropped: nobody can be told */
        else if (n == 0 || errno != EAGAIN || events & EPOLLHUP)
            oob_close(session);
        else
            return;
    }
}

void oob_close(struct session *session)
{
    if (session->oob_fd < 0)
        return;
    engine_unwatch(session->engine, session->oob_fd);
    close(session->oob_fd);
    session->oob_fd = -1;
}
