/* Finds how many data and parity shards a peer's groups have, from the seqids and types of its datagrams alone.
 *
 * With groups of N shards of which the first D are data, a datagram is data exactly if seqid mod N < D. Each datagram
 * rules out the pairs (D, N) that it contradicts; what is left, once it is one pair, is the answer. Unlike a search for
 * whole runs of data and parity this needs no datagram in particular, so loss and reordering only delay it. */
#ifndef KCPSOCKET_FEC_TUNE_H
#define KCPSOCKET_FEC_TUNE_H

#include <stdbool.h>
#include <stdint.h>

#define FEC_TUNE_SIZES 254 /* group sizes 2..255 */

struct fec_candidate { /* groups of `size` shards, of which at least `low` and at most `high` are data */
    uint8_t size, low, high;
};

struct fec_tune {
    int count;        /* candidates left */
    uint32_t samples; /* datagrams since the start, or since the last contradiction of all candidates */
    struct fec_candidate candidates[FEC_TUNE_SIZES];
};

/* Everything is possible. */
void fec_tune_reset(struct fec_tune *tune);

/* A datagram of type data, or else parity, has come. When it contradicts everything that was left, the peer changed or
 * a datagram lied, and the search starts over with this one. */
void fec_tune_sample(struct fec_tune *tune, uint32_t seqid, bool is_data);

/* True when one answer is left, and as many datagrams as one group has agree with it. */
bool fec_tune_found(const struct fec_tune *tune, int *data, int *parity);

#endif
