#include "rs.h"

#include <stdlib.h>
#include <string.h>

#include "gf256.h"
#include "rs_zfec.h"

struct rs {
    int data, parity;           /* shards */
    gf256_product *product;     /* the kernel, NULL when zfec is used */
    struct rs_zfec *zfec;       /* zfec's form of the code, or NULL */
    struct rs *next;            /* the next shared code */
    unsigned users;             /* of a shared code */
    int weights[RS_SHARDS_MAX]; /* [t]: log of the product of (t - m) over the data places m other than t */
    uint8_t matrix[];           /* parity rows of data coefficients */
};

static struct rs *shared; /* a list: few different codes are in use at a time */

/* --- kernels --- */

static const struct gf256_kernel zfec_kernel = {"zfec", rs_zfec_ready, NULL};
static const struct gf256_kernel *chosen; /* NULL: the fastest */

/* Kernel `number` in order of preference, or NULL behind the last. */
static const struct gf256_kernel *kernel_at(int number)
{
    const struct gf256_kernel *const lists[] = {gf256_x86_kernels, gf256_arm_kernels};
    const struct gf256_kernel *const rest[] = {&zfec_kernel, &gf256_portable};

    for (size_t list = 0; list < sizeof lists / sizeof lists[0]; list++) {
        for (const struct gf256_kernel *kernel = lists[list]; kernel->name != NULL; kernel++) {
            if (number-- == 0) {
                return kernel;
            }
        }
    }
    return number == 0 || number == 1 ? rest[number] : NULL;
}

static const struct gf256_kernel *current_kernel(void)
{
    const struct gf256_kernel *kernel = chosen;

    for (int number = 0; kernel == NULL; number++) { /* ends at the portable one, at the latest */
        if (kernel_at(number)->usable()) {
            kernel = kernel_at(number);
        }
    }
    return kernel;
}

const char *rs_kernel_name(int kernel)
{
    return kernel < 0 || kernel_at(kernel) == NULL ? NULL : kernel_at(kernel)->name;
}

bool rs_kernel_usable(int kernel)
{
    return kernel >= 0 && kernel_at(kernel) != NULL && kernel_at(kernel)->usable();
}

int rs_kernel(void)
{
    int number = 0;

    while (kernel_at(number) != current_kernel()) {
        number++;
    }
    return number;
}

bool rs_vectorised(void)
{
    return current_kernel() != &zfec_kernel && current_kernel() != &gf256_portable;
}

int rs_choose_kernel(int kernel)
{
    if (kernel < 0) {
        chosen = NULL;
        return 0;
    }
    if (!rs_kernel_usable(kernel)) {
        return RS_EINVAL;
    }
    chosen = kernel_at(kernel);
    return 0;
}

int rs_use_zfec(void *fec_new, void *fec_free, void *fec_encode, void *fec_decode)
{
    return rs_zfec_adopt(fec_new, fec_free, fec_encode, fec_decode);
}

/* --- codes --- */

/* Logs below are kept in 0..254, so that three of them can be added before the table of exp ends. */

static int log_of_difference(int a, int b)
{
    return gf256_tables()->log[a ^ b];
}

static int reduced(int log)
{
    int rest = log % 255;

    return rest < 0 ? rest + 255 : rest;
}

/* The row of a matrix that makes shard `r` from `count` shards `sources`: Lagrange's basis polynomials at r. The one of
 * source s is the product, over the other sources m, of (r - m) / (s - m); `weight` and `weights` are the logs of the
 * product over the sources of (r - m), and for each s of (s - m). */
static void make_row(uint8_t *row, int r, int weight, const int *sources, const int *weights, int count)
{
    const struct gf256_tables *tables = gf256_tables();

    for (int i = 0; i < count; i++) {
        row[i] = tables->exp[weight + (255 - tables->log[r ^ sources[i]]) + (255 - weights[i])];
    }
}

bool rs_valid(int data, int parity)
{
    return data >= 1 && parity >= 1 && data <= RS_SHARDS_MAX && parity <= RS_SHARDS_MAX - data;
}

struct rs *rs_new(int data, int parity)
{
    const struct gf256_kernel *kernel = current_kernel();
    int sources[RS_SHARDS_MAX];

    if (!rs_valid(data, parity)) {
        return NULL;
    }
    struct rs *rs = calloc(1, sizeof *rs + (size_t)data * (size_t)parity);
    if (rs == NULL) {
        return NULL;
    }
    rs->data = data;
    rs->parity = parity;
    rs->product = kernel->product;
    for (int t = 0; t < data + parity; t++) {
        for (int m = 0; m < data; m++) {
            rs->weights[t] += m == t ? 0 : log_of_difference(t, m);
        }
        rs->weights[t] = reduced(rs->weights[t]);
    }
    for (int c = 0; c < data; c++) {
        sources[c] = c;
    }
    for (int p = 0; p < parity; p++) {
        make_row(rs->matrix + p * data, data + p, rs->weights[data + p], sources, rs->weights, data);
    }
    if (rs->product == NULL) {
        rs->zfec = rs_zfec_new(data, parity, rs->matrix);
        if (rs->zfec == NULL) {
            free(rs);
            return NULL;
        }
    }
    return rs;
}

void rs_free(struct rs *rs)
{
    if (rs != NULL) {
        rs_zfec_free(rs->zfec);
        free(rs);
    }
}

struct rs *rs_get(int data, int parity)
{
    struct rs *rs = shared;

    while (rs != NULL && (rs->data != data || rs->parity != parity)) {
        rs = rs->next;
    }
    if (rs == NULL) {
        rs = rs_new(data, parity);
        if (rs == NULL) {
            return NULL;
        }
        rs->next = shared;
        shared = rs;
    }
    rs->users++;
    return rs;
}

void rs_put(struct rs *rs)
{
    if (rs == NULL || --rs->users > 0) {
        return;
    }
    struct rs **link = &shared;
    while (*link != rs) {
        link = &(*link)->next;
    }
    *link = rs->next;
    rs_free(rs);
}

int rs_data(const struct rs *rs)
{
    return rs->data;
}

int rs_parity(const struct rs *rs)
{
    return rs->parity;
}

const uint8_t *rs_row(const struct rs *rs, int index)
{
    return rs->matrix + index * rs->data;
}

void rs_encode(const struct rs *rs, const uint8_t *const *data, uint8_t *const *parity, size_t n)
{
    if (rs->zfec != NULL) {
        rs_zfec_encode(rs->zfec, data, parity, n);
    } else {
        rs->product(rs->matrix, (size_t)rs->data, (size_t)rs->parity, data, parity, n);
    }
}

/* --- reconstruction --- */

/* Which shards a reconstruction computes, and from which. */
struct plan {
    int missing[RS_SHARDS_MAX];    /* data places without a shard, ascending */
    int substitutes[RS_SHARDS_MAX]; /* as many parity places with one */
    int sources[RS_SHARDS_MAX];    /* the places read: data present, then substitutes; rs->data of them */
    int count;                     /* how many are missing */
};

static bool make_plan(struct plan *plan, const struct rs *rs, const bool *present)
{
    int sources = 0, substitutes = 0;

    plan->count = 0;
    for (int i = 0; i < rs->data; i++) {
        if (present[i]) {
            plan->sources[sources++] = i;
        } else {
            plan->missing[plan->count++] = i;
        }
    }
    for (int i = rs->data; i < rs->data + rs->parity && substitutes < plan->count; i++) {
        if (present[i]) {
            plan->sources[sources++] = i;
            plan->substitutes[substitutes++] = i;
        }
    }
    return substitutes == plan->count;
}

/* As rs->weights[t], but over the sources of `plan` instead of the data places. */
static int weight(const struct rs *rs, const struct plan *plan, int t)
{
    int sum = rs->weights[t];

    for (int i = 0; i < plan->count; i++) {
        sum -= plan->missing[i] == t ? 0 : log_of_difference(t, plan->missing[i]);
        sum += plan->substitutes[i] == t ? 0 : log_of_difference(t, plan->substitutes[i]);
    }
    return reduced(sum);
}

int rs_reconstruct(const struct rs *rs, uint8_t *const *shards, const bool *present, size_t n)
{
    struct plan plan;
    uint8_t matrix[(RS_SHARDS_MAX / 2) * (RS_SHARDS_MAX / 2 + 1)]; /* missing x data, together RS_SHARDS_MAX at most */
    const uint8_t *in[RS_SHARDS_MAX];
    uint8_t *out[RS_SHARDS_MAX];
    int weights[RS_SHARDS_MAX];

    if (!make_plan(&plan, rs, present)) {
        return RS_EINVAL;
    }
    if (plan.count == 0) {
        return 0;
    }
    if (rs->zfec != NULL) {
        rs_zfec_reconstruct(rs->zfec, shards, present, n);
        return 0;
    }
    for (int s = 0; s < rs->data; s++) {
        in[s] = shards[plan.sources[s]];
        weights[s] = weight(rs, &plan, plan.sources[s]);
    }
    for (int e = 0; e < plan.count; e++) {
        int x = plan.missing[e];

        out[e] = shards[x];
        make_row(matrix + e * rs->data, x, weight(rs, &plan, x), plan.sources, weights, rs->data);
    }
    rs->product(matrix, (size_t)rs->data, (size_t)plan.count, in, out, n);
    return 0;
}
