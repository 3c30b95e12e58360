#include <stdlib.h>
#include <string.h>

#include "fec.h"
#include "fec_tune.h"
#include "fec_wire.h"
#include "rs.h"
#include "wire.h"

#define TRUST 16 /* datagrams: with small groups, two of them alone may agree with a code by chance */

/* The shards of one group that have come so far. */
struct group {
    bool used;                /* the rest means something */
    bool done;                /* complete, brought back or given up: shards are gone, later ones are of no use */
    uint32_t number;          /* seqid / (data + parity) */
    int count, data_count;    /* shards here; those of them that are data */
    size_t parity_length;     /* bytes of each parity shard, which is the group's longest; 0: none is here yet */
    struct fec_shard *shards; /* data + parity places */
};

struct fec_decoder {
    struct pool *pool;
    struct rs *rs;               /* the peer's code; NULL: not known yet */
    int data, parity;            /* shards of it */
    uint32_t size;               /* both together */
    bool tuning;                 /* a datagram contradicted the code, or none is known: nothing is collected now */
    uint32_t agreeing;           /* datagrams in a row, while tuning, that agree with the code all the same */
    bool began;                  /* `newest` means something */
    uint32_t newest;             /* number of the newest group, on the circle of fec_seqid_limit(size) / size */
    uint32_t stale;              /* shards in a row that belonged to groups long past */
    struct fec_shard *places;    /* memory of every group's shards */
    struct group groups[FEC_GROUPS];
    struct fec_shard *recovered; /* brought back and not settled; payload behind the two bytes of the size */
    int recovered_count, recovered_room; /* entries, and room for entries */
    int recovered_last;          /* the first entry of the last fec_decode */
    struct fec_counters counters;
    struct fec_tune tune;
};

/* Gives the group's buffers back. */
static void release(struct fec_decoder *decoder, struct group *group)
{
    for (uint32_t i = 0; group->count > 0 && i < decoder->size; i++) {
        if (group->shards[i].bytes != NULL) {
            pool_put(decoder->pool, group->shards[i].bytes);
            group->shards[i].bytes = NULL;
        }
    }
    group->count = group->data_count = 0;
    group->parity_length = 0;
}

static void finish(struct fec_decoder *decoder, struct group *group)
{
    release(decoder, group);
    group->done = true;
}

static void forget_groups(struct fec_decoder *decoder)
{
    for (int i = 0; i < FEC_GROUPS; i++) {
        release(decoder, &decoder->groups[i]);
        decoder->groups[i].used = decoder->groups[i].done = false;
    }
    decoder->began = false;
    decoder->stale = 0;
}

/* Takes `data` and `parity` for the peer's counts. When memory is out everything stays as it was. */
static bool adopt(struct fec_decoder *decoder, int data, int parity)
{
    size_t size = (size_t)(data + parity);
    struct rs *rs = rs_get(data, parity);
    struct fec_shard *places = calloc(FEC_GROUPS * size, sizeof *places);

    if (rs == NULL || places == NULL) {
        rs_put(rs);
        free(places);
        return false;
    }
    forget_groups(decoder);
    rs_put(decoder->rs);
    free(decoder->places);
    decoder->rs = rs;
    decoder->data = data;
    decoder->parity = parity;
    decoder->size = (uint32_t)size;
    decoder->places = places;
    for (int i = 0; i < FEC_GROUPS; i++) {
        decoder->groups[i].shards = places + (size_t)i * size;
    }
    return true;
}

struct fec_decoder *fec_decoder_new(struct pool *pool, int data, int parity)
{
    struct fec_decoder *decoder = calloc(1, sizeof *decoder);

    if (decoder == NULL) {
        return NULL;
    }
    decoder->pool = pool;
    decoder->tuning = true;
    fec_tune_reset(&decoder->tune);
    if (data != 0 || parity != 0) {
        if (!adopt(decoder, data, parity)) {
            free(decoder);
            return NULL;
        }
        decoder->tuning = false;
    }
    return decoder;
}

void fec_decoder_free(struct fec_decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    fec_decoder_settle(decoder);
    forget_groups(decoder);
    rs_put(decoder->rs);
    free(decoder->places);
    free(decoder);
}

/* --- groups --- */

/* How many groups `number` is ahead of the newest one; negative: behind. */
static int64_t ahead(const struct fec_decoder *decoder, uint32_t number)
{
    int64_t circle = fec_seqid_limit(decoder->size) / decoder->size;
    int64_t distance = (int64_t)number - (int64_t)decoder->newest;

    if (distance > circle / 2) {
        return distance - circle;
    }
    return distance < -(circle / 2) ? distance + circle : distance;
}

static void move_to(struct fec_decoder *decoder, uint32_t number)
{
    decoder->newest = number;
    decoder->began = true;
    for (int i = 0; i < FEC_GROUPS; i++) {
        struct group *group = &decoder->groups[i];

        if (group->used && ahead(decoder, group->number) <= -FEC_GROUPS) {
            release(decoder, group);
            group->used = group->done = false;
        }
    }
}

/* The place of the group that shard `seqid` belongs to, or NULL when that is long past. */
static struct group *group_of(struct fec_decoder *decoder, uint32_t seqid)
{
    uint32_t number = seqid / decoder->size;
    struct group *free_place = NULL;

    if (!decoder->began || ahead(decoder, number) > 0) {
        move_to(decoder, number);
    } else if (ahead(decoder, number) <= -FEC_GROUPS) {
        /* A late one. But if nothing else comes any more, it is the peer that went back, or `newest` that was a lie. */
        if (++decoder->stale <= 2 * decoder->size) {
            return NULL;
        }
        forget_groups(decoder);
        move_to(decoder, number);
    }
    decoder->stale = 0;
    for (int i = 0; i < FEC_GROUPS; i++) {
        struct group *group = &decoder->groups[i];

        if (group->used && group->number == number) {
            return group;
        }
        if (!group->used) {
            free_place = group;
        }
    }
    free_place->used = true; /* there is one: only FEC_GROUPS numbers are not long past */
    free_place->number = number;
    return free_place;
}

/* --- bringing back --- */

static bool make_room(struct fec_decoder *decoder, int entries)
{
    int room = decoder->recovered_count + entries;

    if (room > decoder->recovered_room) {
        struct fec_shard *larger = realloc(decoder->recovered, (size_t)room * sizeof *larger);

        if (larger == NULL) {
            return false;
        }
        decoder->recovered = larger;
        decoder->recovered_room = room;
    }
    return true;
}

/* Readies the group for rs_reconstruct: every shard as long as parity, a buffer for each missing data shard. False when
 * its lengths can't be true, or memory is out. */
static bool prepare(struct fec_decoder *decoder, struct group *group, uint8_t **shards, bool *present)
{
    for (int i = 0; i < (int)decoder->size; i++) {
        struct fec_shard *shard = &group->shards[i];

        present[i] = shard->bytes != NULL;
        if (present[i]) {
            if (shard->length > group->parity_length) {
                return false;
            }
            memset(shard->bytes + shard->length, 0, group->parity_length - shard->length);
        } else if (i < decoder->data) {
            shard->bytes = pool_get(decoder->pool);
            if (shard->bytes == NULL) {
                return false;
            }
        }
        shards[i] = shard->bytes;
    }
    return true;
}

/* Computes the missing data shards of a group that has enough others. */
static void bring_back(struct fec_decoder *decoder, struct group *group)
{
    uint8_t *shards[RS_SHARDS_MAX];
    bool present[RS_SHARDS_MAX];
    int missing = decoder->data - group->data_count;

    if (!make_room(decoder, missing) || !prepare(decoder, group, shards, present)) {
        decoder->counters.errs += (uint64_t)missing;
        return;
    }
    rs_reconstruct(decoder->rs, shards, present, group->parity_length);
    for (int i = 0; i < decoder->data; i++) {
        if (present[i]) {
            continue;
        }
        size_t size = wire_get16(shards[i]);
        if (size < FEC_HEADER - FEC_SHARD || size > group->parity_length) {
            decoder->counters.errs++; /* shards of different groups, or lies: the buffer goes back with the group */
            continue;
        }
        decoder->recovered[decoder->recovered_count++] = (struct fec_shard){shards[i], size};
        group->shards[i].bytes = NULL;
        decoder->counters.recovered++;
    }
}

/* Keeps the shard, and brings back what is missing when it was the last that was needed. */
static void collect(struct fec_decoder *decoder, uint32_t seqid, const uint8_t *bytes, size_t length)
{
    struct group *group = group_of(decoder, seqid);
    uint32_t place = seqid % decoder->size;
    bool is_data = place < (uint32_t)decoder->data;

    if (group == NULL || group->done || group->shards[place].bytes != NULL) {
        return;
    }
    if (!is_data) {
        if (group->parity_length != 0 && group->parity_length != length) {
            decoder->counters.errs++;
            return;
        }
        decoder->counters.parity_shards++;
    }
    struct fec_shard *shard = &group->shards[place];
    shard->bytes = pool_get(decoder->pool);
    if (shard->bytes == NULL) {
        return; /* as if it had been lost */
    }
    memcpy(shard->bytes, bytes, length);
    shard->length = length;
    group->count++;
    group->data_count += is_data;
    if (!is_data) {
        group->parity_length = length;
    }
    if (group->count < decoder->data) {
        return;
    }
    if (group->data_count == decoder->data) {
        decoder->counters.full_sets++;
    } else {
        bring_back(decoder, group);
    }
    finish(decoder, group);
}

/* --- the peer's counts --- */

static bool agrees(const struct fec_decoder *decoder, uint32_t seqid, bool is_data)
{
    return seqid < fec_seqid_limit(decoder->size) && (seqid % decoder->size < (uint32_t)decoder->data) == is_data;
}

/* Follows the peer's counts. True when they are known and the datagram is in keeping with them. */
static bool follow(struct fec_decoder *decoder, uint32_t seqid, bool is_data)
{
    int data, parity;

    if (!decoder->tuning) {
        if (agrees(decoder, seqid, is_data)) {
            return true;
        }
        decoder->tuning = true;
        decoder->agreeing = 0;
        fec_tune_reset(&decoder->tune);
    } else if (decoder->rs != NULL) {
        decoder->agreeing = agrees(decoder, seqid, is_data) ? decoder->agreeing + 1 : 0;
        if (decoder->agreeing >= 2 * decoder->size + TRUST) { /* the contradiction was damaged, forged or very late */
            decoder->tuning = false;
            return true;
        }
    }
    fec_tune_sample(&decoder->tune, seqid, is_data);
    if (!fec_tune_found(&decoder->tune, &data, &parity)) {
        return false;
    }
    bool same = data == decoder->data && parity == decoder->parity;
    if (!same && !adopt(decoder, data, parity)) {
        return false;
    }
    decoder->tuning = false;
    decoder->counters.tunings++;
    return true;
}

/* --- the interface --- */

int fec_decode(struct fec_decoder *decoder, const uint8_t *datagram, size_t length)
{
    int type = fec_type_of(datagram, length);

    decoder->recovered_last = decoder->recovered_count;
    if (type != FEC_DATA && type != FEC_PARITY) {
        decoder->counters.errs++;
        return FEC_EINVAL;
    }
    uint32_t seqid = wire_get32(datagram);
    if (follow(decoder, seqid, type == FEC_DATA)) {
        collect(decoder, seqid, datagram + FEC_SHARD, length - FEC_SHARD);
    }
    return decoder->recovered_count - decoder->recovered_last;
}

const uint8_t *fec_recovered(const struct fec_decoder *decoder, int index, size_t *length)
{
    const struct fec_shard *shard = &decoder->recovered[decoder->recovered_last + index];

    *length = shard->length - (FEC_HEADER - FEC_SHARD);
    return shard->bytes + (FEC_HEADER - FEC_SHARD);
}

void fec_decoder_settle(struct fec_decoder *decoder)
{
    for (int i = 0; i < decoder->recovered_count; i++) {
        pool_put(decoder->pool, decoder->recovered[i].bytes);
    }
    free(decoder->recovered);
    decoder->recovered = NULL;
    decoder->recovered_count = decoder->recovered_room = decoder->recovered_last = 0;
}

void fec_decoder_rest(struct fec_decoder *decoder)
{
    for (int i = 0; i < FEC_GROUPS; i++) {
        if (decoder->groups[i].count > 0) {
            finish(decoder, &decoder->groups[i]);
        }
    }
}

void fec_decoder_counters(const struct fec_decoder *decoder, struct fec_counters *out)
{
    *out = decoder->counters;
    out->data = decoder->data;
    out->parity = decoder->parity;
    for (int i = 0; i < FEC_GROUPS; i++) {
        out->open_sets += decoder->groups[i].count > 0;
    }
}
