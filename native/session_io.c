#include "session_io.h"

#include <errno.h>
#include <sys/socket.h>

#include "endpoint.h"
#include "kcp.h"

#define PIECES 64         /* of a gathered read or write, at most, */
#define PIECES_FEW 4      /* and in a read from a stream that has not had more to give */
#define COLLECT_ROUNDS 4  /* reads a turn, so that no session keeps the thread for itself */

/* --- towards the application --- */

static size_t bytes_of(const struct iovec *pieces, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += pieces[i].iov_len;
    return total;
}

static void consume(struct session *session, size_t n)
{
    if (kcp_consume(session->kcp, n))
        session->flush = true; /* the window was shut: tell that it opened */
}

static void discard(struct session *session)
{
    struct iovec pieces[PIECES];
    int count;
    while ((count = kcp_readable(session->kcp, pieces, PIECES)) > 0) {
        consume(session, bytes_of(pieces, count));
        session->late |= session->gone;
    }
}

/* The stream is full. */
static void wait_for_room(struct session *session)
{
    session->writable = false;
    session->room_needless = 0;
    if (!session->room_watched)
        engine_watch_room(session->engine, session->stream_fd, &session->source, true);
    session->room_watched = true;
}

void session_deliver(struct session *session)
{
    struct iovec pieces[PIECES];
    int count;
    while (!session->deaf && session->writable && (count = kcp_readable(session->kcp, pieces, PIECES)) > 0) {
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(session->stream_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            size_t offered = bytes_of(pieces, count);
            consume(session, (size_t)n);
            if ((size_t)n < offered)
                wait_for_room(session);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM) {
            wait_for_room(session);
        } else if (errno != EINTR) {
            session->deaf = true; /* shut for reading, or closed: the hang-up tells which */
        }
    }
    if (session->deaf)
        discard(session);
    if (!session->ended && kcp_at_end(session->kcp)) {
        session->ended = true;
        session->flush = true; /* the peer may be waiting for this ACK to be done */
        shutdown(session->stream_fd, SHUT_WR);
    }
}

/* --- from the application --- */

void session_unstuff(struct session *session)
{
    static uint8_t waste[65536]; /* never read; as much as stream_stuff mostly needs */
    while (session->stuffing > 0) {
        size_t want = session->stuffing < sizeof waste ? session->stuffing : sizeof waste;
        ssize_t n = recv(session->stream_fd, waste, want, MSG_DONTWAIT);
        if (n <= 0)
            break;
        session->stuffing -= (size_t)n;
    }
}

static void end_of_file(struct session *session)
{
    session->readable = false;
    if (!session->finished && (session->late || kcp_finish(session->kcp))) {
        session->finished = true;
        session->flush = true;
    }
}

/* As much as the stream gave last time, with something to spare, or far more if that was all that was asked for: places
 * that stay empty cost more than reading again. (Thousands of sessions with 1 KB each: 64 places took 3 us a message.) */
static void learn_appetite(struct session *session, int asked, int filled)
{
    int next = filled + PIECES_FEW;
    if (filled >= asked)
        next = 4 * asked > session->appetite ? 4 * asked : session->appetite;
    session->appetite = (uint8_t)(next < PIECES ? next : PIECES);
}

/* Reads once. */
static ssize_t read_stream(const struct session *session, struct iovec *pieces, int count)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    if (count == 1) /* the cheaper call */
        return recv(session->stream_fd, pieces->iov_base, pieces->iov_len, MSG_DONTWAIT);
    return recvmsg(session->stream_fd, &message, MSG_DONTWAIT);
}

static void collect_stream(struct session *session)
{
    struct iovec pieces[PIECES];
    if (session->appetite == 0)
        session->appetite = PIECES_FEW;
    for (int round = 0; session->readable && !session->finished; round++) {
        if (round == COLLECT_ROUNDS) {
            session_mark(session);
            return;
        }
        int count = kcp_writable(session->kcp, pieces, session->appetite);
        if (count == 0) {
            /* A full window waits for ACKs. But a hang-up may be all that is left, and that needs no room. */
            uint8_t byte;
            if (session->eof_near && recv(session->stream_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
                end_of_file(session);
            return;
        }
        ssize_t n = read_stream(session, pieces, count);
        int error = errno;
        kcp_commit(session->kcp, n > 0 ? (size_t)n : 0);
        if (n > 0) {
            session->flush = true;
            learn_appetite(session, count, (int)((size_t)n / pieces[count - 1].iov_len) + 1);
            /* A short read emptied the stream; new bytes are a new edge, but an end of file behind these is not. */
            if ((size_t)n < bytes_of(pieces, count) && !session->eof_near)
                session->readable = false;
        } else if (n == 0) {
            end_of_file(session);
        } else if (error == EAGAIN || error == EWOULDBLOCK) {
            session->readable = false;
        } else if (error == ECONNRESET) { /* closed with bytes left unread */
            session->late = true;
            session_orphan(session);
            end_of_file(session);
        } else if (error != EINTR) {
            end_of_file(session);
        }
    }
}

void session_collect(struct session *session)
{
    if (session->finished || (!session->readable && !session->held))
        return;
    engine_hold_post(session->engine);
    if (session_release_held(session))
        collect_stream(session);
    engine_release_post(session->engine);
}
