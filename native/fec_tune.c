#include "fec_tune.h"

#include "fec_wire.h"

void fec_tune_reset(struct fec_tune *tune)
{
    tune->count = FEC_TUNE_SIZES;
    tune->samples = 0;
    for (int i = 0; i < FEC_TUNE_SIZES; i++) {
        tune->candidates[i] = (struct fec_candidate){(uint8_t)(i + 2), 1, (uint8_t)(i + 1)};
    }
}

/* Narrows `candidate` down; false when nothing is left of it. */
static bool agrees(struct fec_candidate *candidate, uint32_t seqid, bool is_data)
{
    uint32_t place = seqid % candidate->size;

    if (seqid >= fec_seqid_limit(candidate->size)) {
        return false;
    }
    if (is_data && candidate->low <= place) {
        candidate->low = (uint8_t)(place + 1);
    }
    if (!is_data && candidate->high > place) {
        candidate->high = (uint8_t)place;
    }
    return candidate->low <= candidate->high;
}

static void narrow(struct fec_tune *tune, uint32_t seqid, bool is_data)
{
    int kept = 0;

    for (int i = 0; i < tune->count; i++) {
        struct fec_candidate candidate = tune->candidates[i];

        if (agrees(&candidate, seqid, is_data)) {
            tune->candidates[kept++] = candidate;
        }
    }
    tune->count = kept;
    tune->samples++;
}

void fec_tune_sample(struct fec_tune *tune, uint32_t seqid, bool is_data)
{
    narrow(tune, seqid, is_data);
    if (tune->count == 0) {
        fec_tune_reset(tune);
        narrow(tune, seqid, is_data);
    }
}

bool fec_tune_found(const struct fec_tune *tune, int *data, int *parity)
{
    const struct fec_candidate *only = &tune->candidates[0];

    if (tune->count != 1 || only->low != only->high || tune->samples < only->size) {
        return false;
    }
    *data = only->low;
    *parity = only->size - only->low;
    return true;
}
