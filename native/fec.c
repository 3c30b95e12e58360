#include "fec.h"

#include <stdlib.h>
#include <string.h>

#include "fec_wire.h"
#include "rs.h"
#include "wire.h"

#define OOB_MIN (FEC_HEADER + 4) /* conv, and no bytes */

/* --- framing --- */

static void put_header(uint8_t *datagram, uint32_t seqid, enum fec_type type)
{
    wire_put32(datagram, seqid);
    wire_put16(datagram + 4, (uint16_t)type);
}

static void put_size(uint8_t *datagram, size_t length)
{
    wire_put16(datagram + FEC_SHARD, (uint16_t)(length - FEC_SHARD));
}

int fec_type_of(const uint8_t *datagram, size_t length)
{
    if (length < FEC_SHARD) {
        return FEC_NONE;
    }
    int type = wire_get16(datagram + 4);
    if (type != FEC_DATA && type != FEC_PARITY && type != FEC_OOB) {
        return FEC_NONE;
    }
    if (length < (type == FEC_OOB ? OOB_MIN : FEC_HEADER) || length > FEC_DATAGRAM_MAX) {
        return FEC_EINVAL;
    }
    if ((wire_get32(datagram) == FEC_SEQID_OOB) != (type == FEC_OOB)) {
        return FEC_EINVAL;
    }
    if (type != FEC_PARITY && wire_get16(datagram + FEC_SHARD) != length - FEC_SHARD) {
        return FEC_EINVAL;
    }
    return type;
}

void fec_frame_oob(uint8_t *datagram, size_t length)
{
    put_header(datagram, FEC_SEQID_OOB, FEC_OOB);
    put_size(datagram, length);
}

/* --- the encoder --- */

struct fec_encoder {
    struct pool *pool;
    struct rs *rs;
    uint32_t seqid;     /* of the next datagram, data or parity */
    uint32_t limit;     /* seqids start over from 0 here: a multiple of data + parity */
    uint32_t last;      /* when the last data datagram went out, ms */
    bool began;         /* there was one: the first has no gap before it */
    bool skip;          /* this group goes without parity */
    int count;          /* data datagrams of this group so far */
    uint32_t due;       /* seqid of the first parity datagram to fetch, when due_length is not 0 */
    size_t due_length;  /* bytes of a parity datagram that is due; 0: none is */
    size_t longest;     /* bytes of the group's longest shard */
    struct fec_shard shards[]; /* the group's data shards so far */
};

/* Forgets the shards of the group under way. */
static void release(struct fec_encoder *encoder)
{
    for (int i = 0; i < rs_data(encoder->rs); i++) {
        if (encoder->shards[i].bytes != NULL) {
            pool_put(encoder->pool, encoder->shards[i].bytes);
            encoder->shards[i].bytes = NULL;
        }
    }
    encoder->longest = 0;
    encoder->due_length = 0;
}

struct fec_encoder *fec_encoder_new(struct pool *pool, int data, int parity, uint32_t seqid)
{
    struct rs *rs = rs_get(data, parity);

    if (rs == NULL) {
        return NULL;
    }
    struct fec_encoder *encoder = calloc(1, sizeof *encoder + (size_t)data * sizeof encoder->shards[0]);
    if (encoder == NULL) {
        rs_put(rs);
        return NULL;
    }
    uint32_t size = (uint32_t)(data + parity);
    encoder->pool = pool;
    encoder->rs = rs;
    encoder->limit = fec_seqid_limit(size);
    encoder->seqid = seqid > encoder->limit - size ? 0 : (seqid + size - 1) / size * size;
    return encoder;
}

void fec_encoder_free(struct fec_encoder *encoder)
{
    if (encoder != NULL) {
        release(encoder);
        rs_put(encoder->rs);
        free(encoder);
    }
}

static void step(struct fec_encoder *encoder, int shards)
{
    encoder->seqid += (uint32_t)shards; /* never past the limit: a group ends there */
    if (encoder->seqid == encoder->limit) {
        encoder->seqid = 0;
    }
}

static void remember(struct fec_encoder *encoder, const uint8_t *datagram, size_t length)
{
    struct fec_shard *shard = &encoder->shards[encoder->count];

    shard->bytes = pool_get(encoder->pool);
    if (shard->bytes == NULL) {
        encoder->skip = true;
        return;
    }
    shard->length = length - FEC_SHARD;
    memcpy(shard->bytes, datagram + FEC_SHARD, shard->length);
    if (shard->length > encoder->longest) {
        encoder->longest = shard->length;
    }
}

int fec_encode(struct fec_encoder *encoder, uint8_t *datagram, size_t length, uint32_t now)
{
    bool gap = encoder->began && now - encoder->last >= FEC_GAP;

    if (length < FEC_HEADER || length > FEC_DATAGRAM_MAX) {
        return FEC_EINVAL;
    }
    if (encoder->due_length != 0) {
        release(encoder);
    }
    put_header(datagram, encoder->seqid, FEC_DATA);
    put_size(datagram, length);
    step(encoder, 1);
    encoder->began = true;
    encoder->last = now;
    if (!encoder->skip) {
        remember(encoder, datagram, length);
    }
    if (++encoder->count < rs_data(encoder->rs)) {
        return 0;
    }

    /* The group is complete. Parity long after most of its group would help nobody: KCP has sent again by then. */
    bool skip = encoder->skip || gap;
    encoder->due = encoder->seqid;
    step(encoder, rs_parity(encoder->rs));
    encoder->count = 0;
    encoder->skip = false;
    if (skip) {
        release(encoder);
        return 0;
    }
    encoder->due_length = FEC_SHARD + encoder->longest;
    return rs_parity(encoder->rs);
}

size_t fec_parity_length(const struct fec_encoder *encoder)
{
    return encoder->due_length;
}

void fec_parity(struct fec_encoder *encoder, uint8_t *const *datagrams)
{
    const uint8_t *data[RS_SHARDS_MAX];
    uint8_t *parity[RS_SHARDS_MAX];

    if (encoder->due_length == 0) {
        return;
    }
    for (int i = 0; i < rs_data(encoder->rs); i++) {
        struct fec_shard *shard = &encoder->shards[i];

        memset(shard->bytes + shard->length, 0, encoder->longest - shard->length);
        data[i] = shard->bytes;
    }
    for (int i = 0; i < rs_parity(encoder->rs); i++) {
        put_header(datagrams[i], encoder->due + (uint32_t)i, FEC_PARITY);
        parity[i] = datagrams[i] + FEC_SHARD;
    }
    rs_encode(encoder->rs, data, parity, encoder->longest);
    release(encoder);
}

void fec_encoder_rest(struct fec_encoder *encoder)
{
    encoder->skip = encoder->count > 0;
    release(encoder);
}

uint32_t fec_encoder_seqid(const struct fec_encoder *encoder)
{
    return encoder->seqid;
}
