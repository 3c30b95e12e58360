/* What a session's turn moves between the ARQ and the application's stream. (outlet.h: what goes to the network.) */
#ifndef KCPSOCKET_SESSION_IO_H
#define KCPSOCKET_SESSION_IO_H

#include "session.h"

/* Gives the application what is in order, and the peer's end of file after it. */
void session_deliver(struct session *session);

/* Takes what the application wrote, as far as the send window has room, and its end of file. */
void session_collect(struct session *session);

/* Lets callers who do not have the engine's lock know whether they may leave small sends for the session. */
void session_tell_taking(struct session *session);

/* Moves what was left for the session and found no room into the send window; false while some still has none. */
bool session_release_held(struct session *session);

/* Reads and discards what stream_stuff put into the stream: it becomes writable for the application. */
void session_unstuff(struct session *session);

#endif
