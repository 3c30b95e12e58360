#include "wait.h"

#include <sched.h>
#include <stdbool.h>
#include <time.h>

#define SPIN_US 50         /* how long to look for events before sleeping, */
#define SPIN_WORTH_US 200  /* if waits have been shorter than this */
#define SPIN_TRIAL_US 5000 /* how often to try that, */
#define SPIN_CREDIT 8      /* and about how many failures end it */
#define SPIN_ACTIVE 8      /* not with more sessions active than these */

#define GATHER_US 500      /* how long to let events gather, */
#define GATHER_ACTIVE 32   /* with more sessions active than these */
#define GATHER_EVENTS 32   /* when fewer events than these are there */

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
                        uint32_t active)
{
    uint64_t began = monotonic_us();
    bool eager = waiter->credit > 0 && active <= SPIN_ACTIVE;
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

/* With hundreds of messages a ms, each event by itself would wake this thread, and what it delivers the application's:
 * to handle them by the dozen costs far less. (5,000 sessions echoing 1 KB ten times a second: 32 us of processor time
 * a message for both processes, instead of 38; which made the difference between keeping up and not.) */
static int gather(int epoll_fd, struct epoll_event *events, int limit, int count)
{
    static const struct timespec moment = {0, GATHER_US * 1000};
    nanosleep(&moment, NULL);
    int more = epoll_wait(epoll_fd, events + count, limit - count, 0);
    return more > 0 ? count + more : count;
}

int wait_for_events(struct waiter *waiter, int epoll_fd, struct epoll_event *events, int limit, int timeout,
                    uint32_t active)
{
    if (timeout == 0)
        return epoll_wait(epoll_fd, events, limit, 0);
    int count = wait_eagerly(waiter, epoll_fd, events, limit, timeout, active);
    if (count > 0 && count < GATHER_EVENTS && active > GATHER_ACTIVE)
        count = gather(epoll_fd, events, limit, count);
    return count;
}
