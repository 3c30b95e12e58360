#include "rs_zfec.h"

#include <string.h>

#include "rs.h"

struct rs_zfec { /* zfec's fec_t */
    unsigned long magic;  /* its check of the fields below: matrix is written through, never replaced */
    unsigned short k, n;  /* data shards, all shards */
    uint8_t *matrix;      /* n rows of k coefficients */
};

static struct {
    struct rs_zfec *(*create)(unsigned short k, unsigned short n);
    void (*destroy)(struct rs_zfec *code);
    void (*encode)(const struct rs_zfec *code, const uint8_t *const *in, uint8_t *const *out, const unsigned *numbers,
                   size_t count, size_t n);
    void (*decode)(const struct rs_zfec *code, const uint8_t *const *in, uint8_t *const *out, const unsigned *numbers,
                   size_t n);
} library;

static bool ready;

/* Two data shards a, b and the parity of RS(2, 2): a polynomial of degree 1 through (0, a), (1, b) is a + x(a + b). */
static const uint8_t known_matrix[4] = {3, 2, 2, 3};
static const uint8_t known_shards[4][20] = {
    {0x00, 0x01, 0x02, 0x03, 0x10, 0x20, 0x40, 0x80, 0xff, 0x53,
     0xca, 0x8e, 0x1d, 0xaa, 0x55, 0x7f, 0xfe, 0x11, 0x99, 0x36},
    {0x01, 0x80, 0x01, 0xc3, 0x00, 0x5a, 0xa5, 0xff, 0x00, 0x0f,
     0xf0, 0x71, 0xe2, 0x3c, 0xb4, 0x08, 0x01, 0x22, 0x42, 0x6d},
    {0x02, 0x1e, 0x04, 0x9e, 0x30, 0xd4, 0x97, 0x7e, 0x1c, 0xeb,
     0xbe, 0x6d, 0xfe, 0x9b, 0x8a, 0x91, 0x1d, 0x77, 0x32, 0x80},
    {0x03, 0x9f, 0x07, 0x5e, 0x20, 0xae, 0x72, 0x01, 0xe3, 0xb7,
     0x84, 0x92, 0x01, 0x0d, 0x6b, 0xe6, 0xe2, 0x44, 0xe9, 0xdb},
};

int rs_zfec_adopt(void *fec_new, void *fec_free, void *fec_encode, void *fec_decode)
{
    const size_t n = sizeof known_shards[0];
    uint8_t shards[4][sizeof known_shards[0]] = {{0}};
    uint8_t *places[4] = {shards[0], shards[1], shards[2], shards[3]};
    bool present[4] = {false, false, true, true};
    int result = 0;

    if (ready) {
        return 0;
    }
    memcpy(&library.create, &fec_new, sizeof fec_new); /* the portable way from void * to a function */
    memcpy(&library.destroy, &fec_free, sizeof fec_free);
    memcpy(&library.encode, &fec_encode, sizeof fec_encode);
    memcpy(&library.decode, &fec_decode, sizeof fec_decode);

    struct rs_zfec *zfec = rs_zfec_new(2, 2, known_matrix);
    if (zfec == NULL) {
        return RS_ZFEC_LAYOUT;
    }
    memcpy(shards, known_shards, 2 * n);
    rs_zfec_encode(zfec, (const uint8_t *const *)places, places + 2, n);
    if (memcmp(shards, known_shards, sizeof shards) != 0) {
        result = RS_ZFEC_ENCODES;
    } else {
        memset(shards, 0, 2 * n);
        rs_zfec_reconstruct(zfec, places, present, n);
        if (memcmp(shards, known_shards, sizeof shards) != 0) {
            result = RS_ZFEC_DECODES;
        }
    }
    rs_zfec_free(zfec);
    ready = result == 0;
    return result;
}

bool rs_zfec_ready(void)
{
    return ready;
}

struct rs_zfec *rs_zfec_new(int data, int parity, const uint8_t *matrix)
{
    struct rs_zfec *zfec = library.create((unsigned short)data, (unsigned short)(data + parity));

    if (zfec == NULL || zfec->k != data || zfec->n != data + parity || zfec->matrix == NULL) {
        return NULL; /* a structure that we don't know is not freed either */
    }
    memcpy(zfec->matrix + (size_t)data * (size_t)data, matrix, (size_t)parity * (size_t)data);
    return zfec;
}

void rs_zfec_free(struct rs_zfec *zfec)
{
    if (zfec != NULL) {
        library.destroy(zfec);
    }
}

void rs_zfec_encode(const struct rs_zfec *zfec, const uint8_t *const *data, uint8_t *const *parity, size_t n)
{
    unsigned numbers[RS_SHARDS_MAX];
    size_t count = (size_t)(zfec->n - zfec->k);

    for (size_t i = 0; i < count; i++) {
        numbers[i] = zfec->k + (unsigned)i;
    }
    library.encode(zfec, data, parity, numbers, count, n);
}

void rs_zfec_reconstruct(const struct rs_zfec *zfec, uint8_t *const *shards, const bool *present, size_t n)
{
    const uint8_t *in[RS_SHARDS_MAX];
    uint8_t *out[RS_SHARDS_MAX];
    unsigned numbers[RS_SHARDS_MAX], substitute = zfec->k;
    size_t missing = 0;

    /* A data shard stands at its own place, and any parity shard in place of one that is missing. */
    for (unsigned i = 0; i < zfec->k; i++) {
        numbers[i] = i;
        if (!present[i]) {
            while (!present[substitute]) {
                substitute++;
            }
            numbers[i] = substitute++;
            out[missing++] = shards[i];
        }
        in[i] = shards[numbers[i]];
    }
    library.decode(zfec, in, out, numbers, n);
}
