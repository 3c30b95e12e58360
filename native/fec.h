/* Forward error correction: the FEC framing of one session's datagrams, sans I/O. Used under the engine's lock.
 *
 *   seqid(4) type(2) size(2) payload            (kcp-go's layout; all numbers little-endian)
 *
 * A group is `data` datagrams of type 0xF1, in the order of sending, then `parity` ones of type 0xF2. seqid counts
 * shards and is a multiple of data + parity at the start of a group. A shard of the Reed-Solomon code is a datagram
 * from `size` on, padded with zeros to the group's longest. A datagram here is what the crypto layer covers: it begins
 * with the FEC header. */
#ifndef KCPSOCKET_FEC_H
#define KCPSOCKET_FEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool.h"

enum {
    FEC_HEADER = 8,          /* bytes before the payload */
    FEC_DATAGRAM_MAX = 1500, /* bytes, header included */
    FEC_GAP = 500,           /* ms between a group's last two datagrams from which on it gets no parity */
    FEC_GROUPS = 4,          /* groups that a decoder collects shards of: the newest and those just before it */
    FEC_EINVAL = -1,
};

enum fec_type {
    FEC_NONE = 0, /* no FEC header: KCP segments */
    FEC_DATA = 0xf1,
    FEC_PARITY = 0xf2,
    FEC_OOB = 0xf3, /* out of band: conv(4) and bytes, outside of KCP and of parity; seqid is all ones */
};

/* What kind of datagram this is: an enum fec_type, or FEC_EINVAL when it has a FEC header that can't be right (cut
 * short, too long, a size that lies, a seqid that no sender uses). The payload of FEC_DATA and FEC_OOB is what follows
 * the header, to the end. */
int fec_type_of(const uint8_t *datagram, size_t length);

/* Writes the header of an out-of-band datagram; `length` includes the header. */
void fec_frame_oob(uint8_t *datagram, size_t length);

/* --- sending --- */

struct fec_encoder;

/* A new encoder, for counts that rs_valid (rs.h) accepts; else, or when out of memory, NULL. `pool` lends buffers while
 * a group is under way, and must outlive it. The first datagram's seqid is `seqid` rounded up to the start of a group:
 * 0 for a new session; when a session changes its counts, the old encoder's fec_encoder_seqid, so that it never steps
 * back. */
struct fec_encoder *fec_encoder_new(struct pool *pool, int data, int parity, uint32_t seqid);
void fec_encoder_free(struct fec_encoder *encoder);

/* Writes the header of a data datagram, whose payload is in place, and remembers its contents; `length` includes the
 * header. Returns how many parity datagrams are due (0 or `parity`), to be fetched by fec_parity at once: the next
 * fec_encode gives them up. FEC_EINVAL, and nothing done, when `length` is not in FEC_HEADER..FEC_DATAGRAM_MAX.
 * `now`: ms, on a clock that may wrap around. When memory is out the group goes without parity. */
int fec_encode(struct fec_encoder *encoder, uint8_t *datagram, size_t length, uint32_t now);

/* Length of each parity datagram that is due, header included; 0 when none is. Never more than the group's longest. */
size_t fec_parity_length(const struct fec_encoder *encoder);

/* Writes the parity datagrams that are due, headers included, to `parity` places of fec_parity_length bytes each. */
void fec_parity(struct fec_encoder *encoder, uint8_t *const *datagrams);

/* Gives memory back while the session is idle: a group under way goes without parity. */
void fec_encoder_rest(struct fec_encoder *encoder);

/* The seqid of the next datagram. */
uint32_t fec_encoder_seqid(const struct fec_encoder *encoder);

/* --- receiving --- */

struct fec_decoder;

/* A new decoder, or NULL when out of memory. `data` and `parity`: what the peer is believed to use, or both 0. What it
 * does use is found from its datagrams, also when it changes. `pool` lends buffers and must outlive the decoder. */
struct fec_decoder *fec_decoder_new(struct pool *pool, int data, int parity);
void fec_decoder_free(struct fec_decoder *decoder);

/* Takes in a datagram of type FEC_DATA or FEC_PARITY (a copy, where it is of use), in any order, late or repeated.
 * Returns how many lost payloads this one brought back (see fec_recovered), mostly 0; FEC_EINVAL when the datagram is
 * malformed. The payload of a data datagram itself is the caller's to deliver. */
int fec_decode(struct fec_decoder *decoder, const uint8_t *datagram, size_t length);

/* Payload `index` of those that the last fec_decode brought back, valid until fec_decoder_settle. */
const uint8_t *fec_recovered(const struct fec_decoder *decoder, int index, size_t *length);

/* Ends the validity of all that was brought back, and gives its memory back. To be called once a batch of datagrams. */
void fec_decoder_settle(struct fec_decoder *decoder);

/* Gives the memory of groups under way back while the session is idle: what they lack stays lost. */
void fec_decoder_rest(struct fec_decoder *decoder);

struct fec_counters { /* since the decoder began */
    uint64_t recovered;     /* payloads brought back */
    uint64_t errs;          /* datagrams dropped as malformed, and shards that could not be brought back */
    uint64_t parity_shards; /* parity datagrams, without repeated, late and superfluous ones */
    uint64_t full_sets;     /* groups whose data datagrams all arrived */
    uint32_t open_sets;     /* groups under way now */
    uint32_t tunings;       /* times that the peer's counts were found */
    int data, parity;       /* the peer's counts; 0 while unknown */
};
void fec_decoder_counters(const struct fec_decoder *decoder, struct fec_counters *out);

#endif
