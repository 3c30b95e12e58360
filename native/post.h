/* What application threads leave for the engine while it is busy.
 *
 * A small send that finds the engine idle is done in the caller's own thread. One that finds it busy could go through the
 * application's stream, but to write there, be reported and be read again costs more than all else that the engine
 * does with it; so the bytes are left here, in order, and the engine takes them when it next looks. Between them and bytes
 * of the same session that go through the stream, the order is kept by two rules: nothing is left here while the stream
 * still holds something, and nobody reads from a stream unless this is empty and stays so meanwhile (post_hold). */
#ifndef KCPSOCKET_POST_H
#define KCPSOCKET_POST_H

#include <stdbool.h>
#include <stddef.h>

#include "api.h"

struct post;

/* NULL when out of memory. */
struct post *post_new(void);
void post_free(struct post *post);

/* Leaves `length` bytes for session `id`, whose application's descriptor is `app_fd`; by any thread. All of them or, when
 * there is no room or the stream is not empty, none (false). */
bool post_leave(struct post *post, kcps_id id, int app_fd, const void *data, size_t length);

/* True when something was left. */
bool post_waits(const struct post *post);

/* Takes all that was left, by the engine's thread or with its lock: calls `deliver` for each piece. */
typedef void post_deliver(void *context, kcps_id id, const void *data, size_t length);
void post_take(struct post *post, post_deliver *deliver, void *context);

/* The same, and then lets nothing be left until post_release. */
void post_hold(struct post *post, post_deliver *deliver, void *context);
void post_release(struct post *post);

#endif
