/* An endpoint: one UDP socket of the engine and the sessions that share it. A client's has one session and is connected
 * to its peer; a listener's has any number, told apart by peer address and conv, and outlives its listener as long as
 * it has sessions. */
#ifndef KCPSOCKET_ENDPOINT_H
#define KCPSOCKET_ENDPOINT_H

#include "engine.h"
#include "session.h"

struct listener {
    kcps_id id;
    int path_fd;               /* by which new sessions reach the application's listening descriptor */
    struct kcps_config config; /* of the sessions it accepts */
};

struct endpoint {
    struct source source;
    struct engine *engine;
    struct udp_socket udp;
    struct seal *seal;                  /* seals and opens every datagram; its key is the endpoint's for life */
    struct listener *listener;          /* NULL: a client's, or nobody listens any more */
    struct session **buckets;           /* by peer address */
    uint32_t bucket_count;              /* a power of two */
    uint32_t session_count;
    struct session *single;             /* the bucket of an endpoint that is connected */
    struct endpoint *next, **link;      /* of the engine's endpoints, then of its dead ones */
    struct kcps_config config;          /* as it was opened */
    bool closed;                        /* its descriptor is closed; events for it are stale */
};

/* Takes over `udp_fd` and begins to receive. 0 or a negative errno (then udp_fd is still the caller's). */
int endpoint_open(struct engine *engine, int udp_fd, bool connected, const struct kcps_config *config,
                  struct endpoint **out);

/* True when the endpoint's cipher and key are those of `config`. */
bool endpoint_has_key(const struct endpoint *endpoint, const struct kcps_config *config);

/* The endpoint bound to `local` on which nobody listens, or NULL. */
struct endpoint *endpoint_orphan(struct engine *engine, const struct address *local);

/* Makes the AF_UNIX stream `app_fd` the endpoint's listener. 0 or a negative errno. */
int endpoint_listen(struct endpoint *endpoint, int app_fd, int backlog, const char *directory,
                    const struct kcps_config *config);

/* Nobody listens any more; sessions live on. */
void endpoint_stop_listening(struct endpoint *endpoint);

/* True when some process still holds the listening descriptor. (Asks by connecting to it: an acceptor may see a stray.) */
bool endpoint_is_heard(struct endpoint *endpoint);

/* A session joins or leaves. The last one to leave an endpoint without a listener closes it. */
bool endpoint_add(struct endpoint *endpoint, struct session *session);
void endpoint_remove(struct endpoint *endpoint, struct session *session);

/* Undoes endpoint_open: the UDP socket is the caller's again. */
void endpoint_abandon(struct endpoint *endpoint);

/* Closes the endpoint if neither sessions nor a listener need it. */
void endpoint_release(struct endpoint *endpoint);

/* Its descriptor has datagrams or errors waiting (`events` as epoll's). */
void endpoint_ready(struct endpoint *endpoint, uint32_t events);

/* Frees a closed endpoint; by the engine's thread only. */
void endpoint_free(struct endpoint *endpoint);

#endif
