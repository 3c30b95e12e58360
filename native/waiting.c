#include "waiting.h"

#include <sched.h>
#include <stdbool.h>
#include <time.h>

#define SPIN_US 50         /* how long to look for events before sleeping, */
#define SPIN_WORTH_US 200  /* if waits have been shorter than this */
#define SPIN_TRIAL_US 5000 /* how often to try that, */
#define SPIN_CREDIT 8      /* and about how many failures end it */
#define SPIN_ROUSED 8      /* not with more sessions roused than these */

#define GATHER_US 300      /* how long to let events gather, */
#define GATHER_ROUSED 32   /* with more sessions roused than these */
#define GATHER_EVENTS 4    /* when fewer events than these are there */

static uint64_t monotonic_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

/* Looks for events until `end`. Others who want the processor get it. */
static int spin(int epoll_fd, struct epoll_event *events, int limit, uint64_t end)
{
    int count = 0;
    while (count == 0 && monotonic_us() < end) {
        count = epoll_wait(epoll_fd, events, limit, 0);
        if (count == 0)
            sched_yield();
    }
    return count;
}

/* To be woken takes longer than most peers on a fast network need to answer, so while answers keep coming soon, the
 * thread looks for SPIN_US before it sleeps: an echo of 64 bytes took 100 us without, 30 us with. An engine whose events
 * come seldom does not spin at all; nor does one with many sessions, which has enough to do. */
static int wait_eagerly(struct waiter *waiter, int epoll_fd, struct epoll_event *events, int limit, int timeout,
                        uint32_t roused)
{
    uint64_t began = monotonic_us();
    bool eager = waiter->credit > 0 && roused <= SPIN_ROUSED;
    int count = eager ? spin(epoll_fd, events, limit, began + SPIN_US) : 0;
    if (count != 0) {
        waiter->credit += waiter->credit < SPIN_CREDIT;
        return count;
    }
    count = epoll_wait(epoll_fd, events, limit, timeout);
    uint64_t ended = monotonic_us();
    if (eager) {
        waiter->credit--;
    } else if (ended - began < SPIN_WORTH_US && ended - waiter->trial > SPIN_TRIAL_US) {
        waiter->credit = SPIN_CREDIT / 2;
        waiter->trial = ended;
    }
    return count;
}

/* With dozens of messages a ms, each by itself would wake this thread, and what it delivers the application's: to handle
 * them by the dozen costs a fifth less. (5,000 sessions echoing 1 KB ten times a second: 30 us of processor time a
 * message for both processes, instead of 38.) Sessions roused from a rest can spare the moment; those whose peers wait
 * for each answer to send the next request could not, and are none of those. */
static int gather(int epoll_fd, struct epoll_event *events, int limit, int count)
{
    static const struct timespec moment = {0, GATHER_US * 1000};
    nanosleep(&moment, NULL);
    int more = epoll_wait(epoll_fd, events + count, limit - count, 0);
    return more > 0 ? count + more : count;
}

int wait_for_events(struct waiter *waiter, int epoll_fd, struct epoll_event *events, int limit, int timeout,
                    uint32_t roused)
{
    int count = timeout == 0 ? epoll_wait(epoll_fd, events, limit, 0)
                             : wait_eagerly(waiter, epoll_fd, events, limit, timeout, roused);
    if (count >= 0 && count < GATHER_EVENTS && roused > GATHER_ROUSED && (count > 0 || timeout == 0))
        count = gather(epoll_fd, events, limit, count);
    return count;
}
