#include "timewait.h"

#include <stdlib.h>

#include "kcp.h"
#include "wire.h"

struct record {
    struct timewait session;
    uint64_t expires;           /* ms on the engine's clock */
    struct record *chain;       /* same bucket */
    struct record *newer;       /* the next in order of ending */
};

#define BUCKETS 1024

struct timewait_table {
    uint64_t seed;
    uint32_t count;
    struct record *oldest, **newest; /* in order of ending, which is that of expiry */
    struct record *buckets[BUCKETS];
};

struct timewait_table *timewait_new(uint64_t seed)
{
    struct timewait_table *table = calloc(1, sizeof *table);
    if (table) {
        table->seed = seed;
        table->newest = &table->oldest;
    }
    return table;
}

void timewait_free(struct timewait_table *table)
{
    timewait_expire(table, UINT64_MAX);
    free(table);
}

static struct record **bucket_of(struct timewait_table *table, const struct address *peer)
{
    return &table->buckets[address_hash(peer, table->seed) % BUCKETS];
}

static void unchain(struct timewait_table *table, struct record *record)
{
    struct record **link = bucket_of(table, &record->session.peer);
    while (*link != record)
        link = &(*link)->chain;
    *link = record->chain;
}

static void drop_oldest(struct timewait_table *table)
{
    struct record *record = table->oldest;
    unchain(table, record);
    table->oldest = record->newer;
    if (!table->oldest)
        table->newest = &table->oldest;
    table->count--;
    free(record);
}

void timewait_add(struct timewait_table *table, const struct timewait *session, uint64_t now)
{
    struct record *record = malloc(sizeof *record);
    if (!record)
        return;
    if (table->count == TIMEWAIT_MAX)
        drop_oldest(table);
    struct record **bucket = bucket_of(table, &session->peer);
    *record = (struct record){.session = *session, .expires = now + TIMEWAIT_MS, .chain = *bucket};
    *bucket = record;
    *table->newest = record;
    table->newest = &record->newer;
    table->count++;
}

struct timewait *timewait_find(struct timewait_table *table, const void *owner, const struct address *peer,
                               uint32_t conv, uint64_t now)
{
    if (!table->count)
        return NULL;
    for (struct record *record = *bucket_of(table, peer); record; record = record->chain)
        if (record->session.owner == owner && record->session.conv == conv && record->expires > now &&
            address_equal(&record->session.peer, peer))
            return &record->session;
    return NULL;
}

uint64_t timewait_expire(struct timewait_table *table, uint64_t now)
{
    while (table->oldest && table->oldest->expires <= now)
        drop_oldest(table);
    return table->oldest ? table->oldest->expires : UINT64_MAX;
}

void timewait_drop(struct timewait_table *table, const void *owner)
{
    struct record **link = &table->oldest;
    while (*link) {
        struct record *record = *link;
        if (record->session.owner != owner) {
            link = &record->newer;
            continue;
        }
        *link = record->newer;
        unchain(table, record);
        table->count--;
        free(record);
    }
    table->newest = link;
}

uint32_t timewait_count(const struct timewait_table *table)
{
    return table->count;
}

size_t timewait_answer(struct timewait *session, const uint8_t *data, size_t length, uint8_t *out, size_t room)
{
    size_t written = 0;
    const uint8_t *whole = data;
    size_t whole_length = length;
    while (length >= WIRE_HEADER) {
        struct wire_segment segment;
        wire_decode(&segment, data);
        data += WIRE_HEADER;
        length -= WIRE_HEADER;
        if (segment.conv != session->conv || segment.len > length)
            break;
        data += segment.len;
        length -= segment.len;
        if (segment.cmd == WIRE_ACK || segment.cmd == WIRE_WINS)
            continue;
        bool old = wire_diff(segment.sn, session->rcv_nxt) < 0;
        bool closing = segment.sn == session->rcv_nxt && segment.len == 0;
        if (segment.cmd != WIRE_PUSH || (!old && !closing))
            return kcp_reset_answer(whole, whole_length, out);
        if (closing)
            session->rcv_nxt++;
        if (written + WIRE_HEADER > room)
            continue;
        struct wire_segment ack = {
            .conv = session->conv,
            .cmd = WIRE_ACK,
            .wnd = (uint16_t)session->rcv_wnd,
            .ts = segment.ts,
            .sn = segment.sn,
            .una = session->rcv_nxt,
        };
        wire_encode(out + written, &ack);
        written += WIRE_HEADER;
    }
    return written;
}
