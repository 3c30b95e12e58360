/* The application's side of a session: AF_UNIX streams, of which the application holds one end and the engine the other.
 *
 * The engine's end is bound to an abstract name that describes the session, so any process that holds the
 * application's end reads the KCP addresses back from getpeername. */
#ifndef KCPSOCKET_STREAM_H
#define KCPSOCKET_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "address.h"
#include "api.h"

struct stream_label { /* what a name says */
    kcps_id id;
    struct address local, peer; /* peer.any.sa_family is AF_UNSPEC for a listener */
};

/* Connects `app_fd`, an unconnected AF_UNIX stream, to a new engine's end of the name `label`.
 * Returns the engine's end, non-blocking, or a negative errno. */
int stream_join(int app_fd, const struct stream_label *label);

/* Bytes with which stream_stuff filled the application's end so that it is not writable; the engine's end must read and
 * discard exactly these first. */
size_t stream_stuff(int app_fd);

/* Makes `app_fd` listen under the name `label`, at a place in `directory` that is gone when this returns.
 * Returns a descriptor (O_PATH) by which stream_visit alone can reach it, or a negative errno. */
int stream_listen(int app_fd, const struct stream_label *label, int backlog, const char *directory);

/* Connects a new engine's end of the name `label` to the listener behind `path_fd`. Returns it, non-blocking, or a
 * negative errno: -EAGAIN when the backlog is full, -ECONNREFUSED when nobody listens any more.
 * Without a label the end has no name, and acceptors take it for a stray. */
int stream_visit(int path_fd, const struct stream_label *label);

/* Reads the label from the descriptor that the application holds: 0, -ENOTCONN when it is not such an end. */
int stream_label_of(int app_fd, struct stream_label *label);

#endif
