#include "udp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define GSO_SEGMENTS 64                /* the kernel's UDP_MAX_SEGMENTS in its older, smaller form */
#define GSO_BYTES 65000                /* a message must stay under 65,535 bytes with its headers */
#define INBOX_MESSAGES 16
#define SINGLES 8                      /* messages in one ms after which a client's socket is read in batches */
#define INBOX_BYTES 65536              /* what GRO may coalesce into one message */
#define CONTROL_BYTES 128              /* packet info and a segment size */
#define SEND_PATIENCE 10               /* ms to wait for room in the kernel's send buffer before dropping */

/* --- set-up --- */

/* True when it took effect. Each option set here is a help, not a need: without it, datagrams are still carried. */
static bool set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static void set_buffers(int fd, uint32_t bytes)
{
    /* Privileged processes may go past the system's limit. */
    if (!set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)bytes))
        set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)bytes);
    if (!set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, (int)bytes))
        set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)bytes);
}

int udp_adopt(struct udp_socket *udp, int fd, bool connected, uint32_t sockbuf, uint32_t dscp)
{
    struct address local;
    int result = address_of_socket(fd, &local);
    int flags = fcntl(fd, F_GETFL);
    if (result < 0)
        return result;
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    bool v6 = local.any.sa_family == AF_INET6;
    if (sockbuf)
        set_buffers(fd, sockbuf);
    if (dscp) {
        set_int(fd, IPPROTO_IP, IP_TOS, (int)(dscp << 2));
        if (v6)
            set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, (int)(dscp << 2));
    }
    set_int(fd, IPPROTO_IP, IP_RECVERR, 1);
    if (v6)
        set_int(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
    if (!connected) { /* a connected socket's local address is one and known */
        set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
        if (v6)
            set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    }
    if (!connected)
        set_int(fd, SOL_UDP, UDP_GRO, 1);
    *udp = (struct udp_socket){
        .fd = fd,
        .connected = connected,
        .wildcard = address_is_wildcard(&local),
        .gso = true,
        .expected = connected ? 1 : INBOX_MESSAGES,
        .local = local,
    };
    return 0;
}

/* --- sending --- */

struct entry { /* a closed datagram */
    struct udp_target target;
    uint32_t offset, length; /* in the batch's bytes */
};

struct control { /* room for a message's control data */
    _Alignas(struct cmsghdr) uint8_t bytes[CONTROL_BYTES];
};

struct udp_batch {
    uint32_t count, used;                    /* closed datagrams, and their bytes */
    struct udp_sent totals;
    struct entry entries[UDP_BATCH];
    struct mmsghdr messages[UDP_BATCH]; /* built by udp_batch_send */
    struct iovec pieces[UDP_BATCH];
    uint32_t datagrams[UDP_BATCH];     /* of each message */
    struct control controls[UDP_BATCH];
    uint8_t bytes[UDP_BATCH * UDP_DATAGRAM];
};

struct udp_batch *udp_batch_new(void)
{
    return calloc(1, sizeof(struct udp_batch));
}

void udp_batch_free(struct udp_batch *batch)
{
    free(batch);
}

size_t udp_batch_room(const struct udp_batch *batch)
{
    return UDP_BATCH - batch->count;
}

uint8_t *udp_batch_open(struct udp_batch *batch)
{
    return batch->bytes + batch->used;
}

void udp_batch_close(struct udp_batch *batch, const struct udp_target *target, size_t length)
{
    batch->entries[batch->count++] = (struct entry){*target, batch->used, (uint32_t)length};
    batch->used += (uint32_t)length;
}

const struct udp_sent *udp_batch_totals(const struct udp_batch *batch)
{
    return &batch->totals;
}

static bool same_target(const struct udp_target *a, const struct udp_target *b)
{
    return a->socket == b->socket && (a->socket->connected || a->peer == b->peer);
}

/* How many entries from `first` on one UDP_SEGMENT message can carry: equal lengths, only the last may be shorter. */
static uint32_t run_length(const struct udp_batch *batch, uint32_t first)
{
    const struct entry *head = &batch->entries[first];
    uint32_t count = 1, bytes = head->length;
    if (!head->target.socket->gso)
        return 1;
    while (first + count < batch->count && count < GSO_SEGMENTS) {
        const struct entry *next = &batch->entries[first + count];
        if (!same_target(&head->target, &next->target) || next->length > head->length ||
            bytes + next->length > GSO_BYTES)
            break;
        bytes += next->length;
        count++;
        if (next->length < head->length)
            break;
    }
    return count;
}

static void *add_control(struct msghdr *message, int level, int type, size_t length)
{
    struct cmsghdr *header = (struct cmsghdr *)((uint8_t *)message->msg_control + message->msg_controllen);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(length);
    message->msg_controllen += CMSG_SPACE(length);
    return CMSG_DATA(header);
}

static void add_source(struct msghdr *message, const struct address *local)
{
    if (local->any.sa_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = local->v4.sin_addr};
        memcpy(add_control(message, IPPROTO_IP, IP_PKTINFO, sizeof info), &info, sizeof info);
    } else if (local->any.sa_family == AF_INET6) {
        struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr, .ipi6_ifindex = local->v6.sin6_scope_id};
        memcpy(add_control(message, IPPROTO_IPV6, IPV6_PKTINFO, sizeof info), &info, sizeof info);
    }
}

/* Fills message `m` with the `count` entries from `first` on. */
static void build_message(struct udp_batch *batch, uint32_t m, uint32_t first, uint32_t count)
{
    const struct entry *head = &batch->entries[first], *last = head + count - 1;
    struct msghdr *message = &batch->messages[m].msg_hdr;
    batch->pieces[m] = (struct iovec){batch->bytes + head->offset, last->offset + last->length - head->offset};
    batch->datagrams[m] = count;
    *message = (struct msghdr){.msg_iov = &batch->pieces[m], .msg_iovlen = 1, .msg_control = batch->controls[m].bytes};
    if (!head->target.socket->connected) {
        message->msg_name = (void *)(uintptr_t)&head->target.peer->any;
        message->msg_namelen = address_length(head->target.peer);
    }
    if (head->target.socket->wildcard && head->target.local)
        add_source(message, head->target.local);
    if (count > 1) {
        uint16_t size = (uint16_t)head->length;
        memcpy(add_control(message, SOL_UDP, UDP_SEGMENT, sizeof size), &size, sizeof size);
    }
    if (!message->msg_controllen)
        message->msg_control = NULL;
}

static bool wait_writable(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    return poll(&writable, 1, SEND_PATIENCE) > 0;
}

/* What to do about an error of sendmmsg at the first message left. */
enum verdict { RETRY, SKIP, RESPLIT };

static enum verdict judge(struct udp_socket *udp, bool segmented, int error, int *patience)
{
    if ((error == EAGAIN || error == ENOBUFS) && --*patience > 0)
        return wait_writable(udp->fd) ? RETRY : SKIP;
    if (error == EINTR)
        return RETRY;
    if (segmented && (error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP)) {
        udp->gso = false;
        return RESPLIT;
    }
    /* A pending ICMP error is reported by the next send, which did nothing else; the error queue tells it better. */
    if ((error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH) && --*patience > 0)
        return RETRY;
    return SKIP;
}

/* As sendmmsg; the most frequent case, one plain datagram to a client's peer, by the cheapest call. */
static int send_messages(struct udp_socket *udp, struct mmsghdr *messages, uint32_t count)
{
    const struct msghdr *first = &messages->msg_hdr;
    if (count > 1)
        return sendmmsg(udp->fd, messages, count, MSG_NOSIGNAL);
    ssize_t sent = first->msg_control ? sendmsg(udp->fd, first, MSG_NOSIGNAL)
                                      : sendto(udp->fd, first->msg_iov->iov_base, first->msg_iov->iov_len, MSG_NOSIGNAL,
                                               first->msg_name, first->msg_namelen);
    return sent < 0 ? -1 : 1;
}

/* Sends the entries from `first` up to `end`, all of one socket. */
static void send_run(struct udp_batch *batch, uint32_t first, uint32_t end)
{
    struct udp_socket *udp = batch->entries[first].target.socket;
    int patience = 4;
    while (first < end) {
        uint32_t messages = 0;
        for (uint32_t i = first; i < end; messages++) {
            uint32_t count = run_length(batch, i);
            if (count > end - i)
                count = end - i;
            build_message(batch, messages, i, count);
            i += count;
        }
        for (uint32_t m = 0; m < messages;) {
            int sent = send_messages(udp, &batch->messages[m], messages - m);
            if (sent < 0) {
                enum verdict verdict = judge(udp, batch->datagrams[m] > 1, errno, &patience);
                if (verdict == RESPLIT)
                    break;
                if (verdict == RETRY)
                    continue;
                batch->totals.dropped += batch->datagrams[m];
                first += batch->datagrams[m++];
                continue;
            }
            for (int i = 0; i < sent; i++, m++) {
                batch->totals.packets += batch->datagrams[m];
                batch->totals.bytes += batch->pieces[m].iov_len;
                first += batch->datagrams[m];
            }
        }
    }
}

void udp_batch_send(struct udp_batch *batch)
{
    uint32_t first = 0;
    while (first < batch->count) {
        uint32_t end = first + 1;
        while (end < batch->count && batch->entries[end].target.socket == batch->entries[first].target.socket)
            end++;
        send_run(batch, first, end);
        first = end;
    }
    batch->count = 0;
    batch->used = 0;
}

/* --- receiving --- */

struct udp_inbox {
    struct mmsghdr messages[INBOX_MESSAGES];
    struct iovec pieces[INBOX_MESSAGES];
    struct address peers[INBOX_MESSAGES];
    struct control controls[INBOX_MESSAGES];
    uint8_t bytes[INBOX_MESSAGES][INBOX_BYTES];
};

struct udp_inbox *udp_inbox_new(void)
{
    return calloc(1, sizeof(struct udp_inbox));
}

void udp_inbox_free(struct udp_inbox *inbox)
{
    free(inbox);
}

/* Reads the control data of a received message: the address it was sent to, and the size of GRO's segments (0: one). */
static void read_control(struct msghdr *message, struct address *local, size_t *segment)
{
    *segment = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            *segment = (size_t)size;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && local->any.sa_family == AF_INET) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            local->v4.sin_addr = info.ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            local->v6.sin6_addr = info.ipi6_addr;
            local->v6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
        }
    }
}

/* As recvmmsg, for the one message that a client's socket mostly holds; when thousands of them do, that halves what it
 * costs. One that gets more, soon one after another, is read in batches from then on. */
static int receive_one(struct udp_inbox *inbox, struct udp_socket *udp, uint64_t now)
{
    ssize_t length = recv(udp->fd, inbox->bytes[0], INBOX_BYTES, MSG_DONTWAIT);
    if (length < 0)
        return -1;
    inbox->messages[0] = (struct mmsghdr){.msg_len = (unsigned)length};
    if (udp->singles_at != now)
        udp->singles = 0;
    udp->singles_at = now;
    if (++udp->singles == SINGLES) {
        set_int(udp->fd, SOL_UDP, UDP_GRO, 1);
        udp->expected = 2;
    }
    return 1;
}

/* Makes room for as many messages as came last time, or twice that if there may have been more. */
static int receive_many(struct udp_inbox *inbox, struct udp_socket *udp)
{
    for (int i = 0; i < udp->expected; i++) {
        inbox->pieces[i] = (struct iovec){inbox->bytes[i], INBOX_BYTES};
        inbox->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &inbox->peers[i],
            .msg_namelen = sizeof inbox->peers[i],
            .msg_iov = &inbox->pieces[i],
            .msg_iovlen = 1,
            .msg_control = inbox->controls[i].bytes,
            .msg_controllen = CONTROL_BYTES,
        };
    }
    int count = recvmmsg(udp->fd, inbox->messages, udp->expected, MSG_DONTWAIT, NULL);
    int next = count < udp->expected ? count : 2 * count;
    udp->expected = (uint8_t)(next < 2 ? 2 : next < INBOX_MESSAGES ? next : INBOX_MESSAGES);
    return count;
}

/* Hands out the datagrams of message `i`. */
static void unpack(struct udp_inbox *inbox, int i, struct udp_socket *udp, struct udp_datagram *datagram,
                   void (*deliver)(void *context, struct udp_datagram *datagram), void *context)
{
    size_t length = inbox->messages[i].msg_len, segment;
    datagram->local = udp->local;
    read_control(&inbox->messages[i].msg_hdr, &datagram->local, &segment);
    for (size_t offset = 0; offset < length || offset == 0; offset += segment) {
        datagram->data = inbox->bytes[i] + offset;
        datagram->length = segment && length - offset > segment ? segment : length - offset;
        deliver(context, datagram);
        if (!segment)
            break;
    }
}

bool udp_receive(struct udp_inbox *inbox, struct udp_socket *udp, uint64_t now, uint64_t *dropped,
                 void (*deliver)(void *context, struct udp_datagram *datagram), void *context)
{
    int asked = udp->expected;
    int count = asked == 1 ? receive_one(inbox, udp, now) : receive_many(inbox, udp);
    if (count < 0) /* a pending ICMP error takes one call; what waits behind it still is to be received */
        return errno != EAGAIN && errno != EWOULDBLOCK && errno != EBADF;
    for (int i = 0; i < count; i++) {
        struct udp_datagram datagram;
        if (!udp->connected)
            datagram.peer = inbox->peers[i];
        if (inbox->messages[i].msg_hdr.msg_flags & MSG_TRUNC)
            ++*dropped;
        else
            unpack(inbox, i, udp, &datagram, deliver, context);
    }
    return asked > 1 && count == asked;
}

bool udp_next_error(struct udp_socket *udp, struct address *peer, int *error)
{
    uint8_t payload[64];
    struct control control;
    struct iovec piece = {payload, sizeof payload};
    struct msghdr message = {
        .msg_name = peer,
        .msg_namelen = sizeof *peer,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    *error = 0;
    memset(peer, 0, sizeof *peer);
    if (recvmsg(udp->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
        return false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
        bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
        if (!v4 && !v6)
            continue;
        struct sock_extended_err report;
        memcpy(&report, CMSG_DATA(c), sizeof report);
        if (report.ee_origin == SO_EE_ORIGIN_ICMP || report.ee_origin == SO_EE_ORIGIN_ICMP6)
            *error = (int)report.ee_errno;
    }
    return true;
}
