/* How the engine's thread waits for events: it looks for them for a moment, sleeps, or lets them gather. */
#ifndef KCPSOCKET_WAITING_H
#define KCPSOCKET_WAITING_H

#include <stdint.h>
#include <sys/epoll.h>

struct waiter { /* how eager the thread is to look for events a little longer before it sleeps */
    int credit;     /* spins that may still fail */
    uint64_t trial; /* us: when the last of them began on trial */
};

/* As epoll_wait, `timeout` in ms. `roused`: sessions that had a turn within about a ms after a longer rest. */
int wait_for_events(struct waiter *waiter, int epoll_fd, struct epoll_event *events, int limit, int timeout,
                    uint32_t roused);

#endif
