/* The little about each session that outlives it and crosses fork: its phase and its pending error.
 *
 * The table lies in memory shared with forked children, so that a child which holds an inherited descriptor learns why
 * its stream ended, and takes the error as SO_ERROR would. A session's id is its table's tag, its slot's generation and
 * its slot's index; an id of the past never reads a later session's entry while anyone holds it (slots that nobody
 * claims are used again in turn, oldest first, and at least STATUS_REST others come between). */
#ifndef KCPSOCKET_STATUS_H
#define KCPSOCKET_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "api.h"

#define STATUS_SLOTS (1u << 20)
#define STATUS_REST 1024 /* free slots that are kept back */

struct status_table;

/* A new table with a random tag, or NULL when out of memory. It stays known to status_error and status_phase, in this
 * process and in its children, until the process ends. */
struct status_table *status_table_new(void);

/* Takes a slot for `object` (a session or a listener) and gives its id; 0 when there are no more. */
kcps_id status_open(struct status_table *table, void *object, enum kcps_phase phase);

/* The object of a live id, or NULL. */
void *status_object(const struct status_table *table, kcps_id id);

/* The object is gone. The entry stays readable until nobody claims it. */
void status_close(struct status_table *table, kcps_id id);

/* One more, one fewer holder of the id. */
void status_claim(struct status_table *table, kcps_id id);
void status_forget(struct status_table *table, kcps_id id);

void status_set_phase(struct status_table *table, kcps_id id, enum kcps_phase phase);
void status_set_error(struct status_table *table, kcps_id id, int error);

/* Whether small sends may be left for the session (post.h). status_taking needs no lock. */
void status_set_taking(struct status_table *table, kcps_id id, bool taking);
bool status_taking(const struct status_table *table, kcps_id id);

/* These two need no lock and find the table themselves, a parent's too. */
int status_error(kcps_id id, bool clear);
enum kcps_phase status_phase(kcps_id id);

#endif
