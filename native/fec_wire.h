/* What the FEC framing's encoder, decoder and tuner share. */
#ifndef KCPSOCKET_FEC_WIRE_H
#define KCPSOCKET_FEC_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define FEC_SHARD 6               /* where the Reed-Solomon shard begins in a datagram: with the size field */
#define FEC_SEQID_OOB 0xffffffffu /* beyond every seqid of data and parity */

struct fec_shard {
    uint8_t *bytes; /* buffer of the pool, or NULL: not there */
    size_t length;  /* bytes of it */
};

/* Where the seqids of groups of `size` shards start over from 0. */
static inline uint32_t fec_seqid_limit(uint32_t size)
{
    return 0xffffffffu / size * size;
}

#endif
