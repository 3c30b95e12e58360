#include "outlet.h"

#include <string.h>

#include "endpoint.h"
#include "fec.h"
#include "kcp.h"
#include "seal.h"
#include "session.h"
#include "udp.h"
#include "wire.h"

#define TOGETHER UDP_BATCH /* datagrams sealed at a time */

struct outlet {
    struct kcp_sink sink;        /* first: the ARQ gives it back to us */
    struct session *session;
    struct endpoint *endpoint;
    struct udp_batch *outbox;
    struct udp_target target;
    struct fec_encoder *encoder; /* NULL: without FEC */
    size_t front, back;          /* the cipher's bytes around each datagram */
    uint8_t *datagram;           /* the one that is open */
    size_t count;                /* closed and not yet sealed */
    uint8_t *packets[TOGETHER];
    size_t lengths[TOGETHER];
};

uint32_t outlet_overhead(const struct kcps_config *config)
{
    int seal = seal_overhead(config->crypt);
    return (seal > 0 ? (uint32_t)seal : 0) + (config->datashard ? FEC_HEADER : 0);
}

static void seal(struct outlet *outlet)
{
    if (outlet->count && seal_packets(outlet->endpoint->seal, outlet->packets, outlet->lengths, outlet->count) < 0)
        for (size_t i = 0; i < outlet->count; i++) /* what a broken cipher left must not go out */
            memset(outlet->packets[i], 0, outlet->lengths[i]);
    outlet->count = 0;
}

/* Makes room for `n` more datagrams, at most UDP_BATCH, without anything being sent between them. */
static void reserve(struct outlet *outlet, size_t n)
{
    if (outlet->count + n <= TOGETHER && udp_batch_room(outlet->outbox) >= n)
        return;
    seal(outlet);
    if (udp_batch_room(outlet->outbox) < n)
        udp_batch_send(outlet->outbox);
}

/* Room for one more datagram, behind the cipher's header. */
static uint8_t *open_datagram(struct outlet *outlet)
{
    reserve(outlet, 1);
    outlet->datagram = udp_batch_open(outlet->outbox);
    return outlet->datagram + outlet->front;
}

static void close_datagram(struct outlet *outlet, size_t length)
{
    size_t whole = outlet->front + length + outlet->back;
    outlet->packets[outlet->count] = outlet->datagram;
    outlet->lengths[outlet->count++] = outlet->front + length;
    udp_batch_close(outlet->outbox, &outlet->target, whole);
    if (outlet->session) {
        outlet->session->out_pkts++;
        outlet->session->out_bytes += whole;
    }
}

static uint8_t *sink_open(struct kcp_sink *sink)
{
    struct outlet *outlet = (struct outlet *)sink;
    return open_datagram(outlet) + (outlet->encoder ? FEC_HEADER : 0);
}

/* The places lie one behind the other, each closed at the length it will have, before the code fills all at once. */
static void send_parity(struct outlet *outlet, size_t due)
{
    uint8_t *places[UDP_BATCH];
    size_t length = fec_parity_length(outlet->encoder);
    reserve(outlet, due);
    for (size_t i = 0; i < due; i++) {
        places[i] = open_datagram(outlet);
        close_datagram(outlet, length);
    }
    fec_parity(outlet->encoder, places);
}

static void sink_close(struct kcp_sink *sink, size_t length)
{
    struct outlet *outlet = (struct outlet *)sink;
    if (!outlet->encoder) {
        close_datagram(outlet, length);
        return;
    }
    int due = fec_encode(outlet->encoder, outlet->datagram + outlet->front, FEC_HEADER + length,
                         (uint32_t)outlet->session->engine->now);
    close_datagram(outlet, FEC_HEADER + length);
    if (due > 0)
        send_parity(outlet, (size_t)due);
}

static void begin(struct outlet *outlet, struct endpoint *endpoint, const struct address *peer,
                  const struct address *local)
{
    outlet->sink = (struct kcp_sink){sink_open, sink_close};
    outlet->session = NULL;
    outlet->endpoint = endpoint;
    outlet->outbox = endpoint->engine->outbox;
    outlet->target = (struct udp_target){&endpoint->udp, peer, local};
    outlet->encoder = NULL;
    outlet->front = seal_front(endpoint->seal);
    outlet->back = seal_back(endpoint->seal);
    outlet->count = 0;
}

void outlet_flush(struct session *session)
{
    struct outlet outlet;
    begin(&outlet, session->endpoint, &session->peer, &session->local);
    outlet.session = session;
    outlet.encoder = session->encoder;
    session->flush = false;
    kcp_flush(session->kcp, (uint32_t)session->engine->now, &outlet.sink);
    seal(&outlet);
}

void outlet_send(struct session *session, const uint8_t *payload, size_t length)
{
    struct outlet outlet;
    begin(&outlet, session->endpoint, &session->peer, &session->local);
    outlet.session = session;
    outlet.encoder = session->encoder;
    memcpy(sink_open(&outlet.sink), payload, length);
    sink_close(&outlet.sink, length);
    seal(&outlet);
}

void outlet_oob(struct session *session, const uint8_t *data, size_t length)
{
    struct outlet outlet;
    begin(&outlet, session->endpoint, &session->peer, &session->local);
    outlet.session = session;
    uint8_t *datagram = open_datagram(&outlet);
    wire_put32(datagram + FEC_HEADER, kcp_conv(session->kcp));
    memcpy(datagram + FEC_HEADER + 4, data, length);
    fec_frame_oob(datagram, FEC_HEADER + 4 + length);
    close_datagram(&outlet, FEC_HEADER + 4 + length);
    seal(&outlet);
}

void outlet_answer(struct endpoint *endpoint, const struct address *peer, const struct address *local,
                   const uint8_t *payload, size_t length)
{
    struct outlet outlet;
    begin(&outlet, endpoint, peer, local);
    memcpy(open_datagram(&outlet), payload, length);
    close_datagram(&outlet, length);
    seal(&outlet);
    udp_batch_send(outlet.outbox); /* peer and local live no longer than this */
}
