/* UDP: the one file that sends and receives datagrams.
 *
 * Datagrams leave in batches: each is written once, into one of the batch's places, which lie end to end; udp_batch_send
 * hands the whole to the kernel with one sendmmsg, as a single UDP_SEGMENT message wherever consecutive datagrams
 * of one destination have one length. They arrive in batches too (recvmmsg), coalesced by UDP_GRO where the kernel does
 * that; a client's socket is read by plain recv until several datagrams are seen to wait. */
#ifndef KCPSOCKET_UDP_H
#define KCPSOCKET_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

#define UDP_DATAGRAM 1536 /* bytes that a datagram to be sent may have */
#define UDP_BATCH 256     /* datagrams that an empty batch takes: a whole FEC group's parity, at least */

struct udp_socket {
    int fd;
    bool connected;     /* to one peer */
    bool wildcard;      /* bound to 0.0.0.0 or ::, so that replies must name their source address */
    bool gso;           /* UDP_SEGMENT works as far as we know */
    uint8_t expected;   /* messages that the next udp_receive asks for; 1: as yet, one by one and without UDP_GRO */
    uint8_t singles;    /* messages received so since `singles_at` (ms) */
    uint64_t singles_at;
    struct address local;
};

/* Takes over `fd`, a bound UDP socket: sets it up (non-blocking, kernel buffers of `sockbuf` bytes, DSCP, error queue,
 * packet info). 0 or a negative errno, and then fd still is the caller's. */
int udp_adopt(struct udp_socket *udp, int fd, bool connected, uint32_t sockbuf, uint32_t dscp);

/* --- sending --- */

struct udp_target { /* where a datagram goes, and from where */
    struct udp_socket *socket;
    const struct address *peer;  /* ignored on a connected socket */
    const struct address *local; /* source address, used on a wildcard socket */
};

struct udp_batch;

struct udp_batch *udp_batch_new(void);
void udp_batch_free(struct udp_batch *batch);

/* How many more datagrams there is room for, UDP_BATCH when it is empty. */
size_t udp_batch_room(const struct udp_batch *batch);

/* Room for a datagram of UDP_DATAGRAM bytes, in a batch that has it. */
uint8_t *udp_batch_open(struct udp_batch *batch);

/* The datagram opened last has `length` bytes and goes to `target`, whose pointers must stay valid until
 * udp_batch_send; its bytes may still be changed until then. */
void udp_batch_close(struct udp_batch *batch, const struct udp_target *target, size_t length);

/* Sends all that was closed. What the kernel won't take is dropped, as the network may; `dropped` of the batch counts. */
void udp_batch_send(struct udp_batch *batch);

struct udp_sent { /* totals of a batch since it was made */
    uint64_t packets, bytes, dropped;
};
const struct udp_sent *udp_batch_totals(const struct udp_batch *batch);

/* --- receiving --- */

struct udp_datagram {
    uint8_t *data;        /* may be changed in place; valid until the next udp_receive */
    size_t length;        /* bytes */
    struct address peer;  /* unset on a connected socket */
    struct address local; /* the address it was sent to; the port is the socket's */
};

struct udp_inbox; /* memory for one batch of received datagrams */

struct udp_inbox *udp_inbox_new(void);
void udp_inbox_free(struct udp_inbox *inbox);

/* Receives what is there, up to a batch, into `inbox`, and calls `deliver` for each datagram. Returns true when more may
 * wait. Truncated datagrams are dropped and counted in *dropped. `now` in ms. */
bool udp_receive(struct udp_inbox *inbox, struct udp_socket *udp, uint64_t now, uint64_t *dropped,
                 void (*deliver)(void *context, struct udp_datagram *datagram), void *context);

/* Takes one report from the socket's error queue (ICMP): true when there was one; `peer` is whom the datagram had been
 * sent to, and the result in *error is its errno (ECONNREFUSED, EHOSTUNREACH ...) or 0 for a kind of no concern. */
bool udp_next_error(struct udp_socket *udp, struct address *peer, int *error);

#endif
