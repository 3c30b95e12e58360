#include "kcp_collect.h"

#include <stdlib.h>

struct datagram {
    uint8_t *data; /* ours, `room` bytes */
    size_t length; /* bytes of it in use */
};

struct kcp_collect {
    struct kcp_sink sink;      /* first: a sink's address is its collection's */
    size_t room;               /* bytes each datagram may have */
    uint8_t *spare;            /* `room` bytes to write to when memory is out */
    uint8_t *opened;           /* the datagram under way; `spare` when it will be lost */
    struct datagram *datagram; /* those complete */
    size_t count, size;        /* entries of it: in use, allocated */
};

static uint8_t *collect_open(struct kcp_sink *sink)
{
    struct kcp_collect *collect = (struct kcp_collect *)sink;
    /* Each its own block, so that a sanitizer sees a write past `room`. */
    collect->opened = malloc(collect->room);
    if (!collect->opened)
        collect->opened = collect->spare;
    return collect->opened;
}

static bool reserve(struct kcp_collect *collect)
{
    if (collect->count < collect->size)
        return true;
    size_t size = collect->size ? 2 * collect->size : 64;
    struct datagram *grown = realloc(collect->datagram, size * sizeof(*grown));
    if (!grown)
        return false;
    collect->datagram = grown;
    collect->size = size;
    return true;
}

static void collect_close(struct kcp_sink *sink, size_t length)
{
    struct kcp_collect *collect = (struct kcp_collect *)sink;
    uint8_t *data = collect->opened;
    collect->opened = NULL;
    if (data == collect->spare)
        return;
    if (!reserve(collect)) {
        free(data);
        return;
    }
    collect->datagram[collect->count++] = (struct datagram){.data = data, .length = length};
}

struct kcp_collect *kcp_collect_new(size_t room)
{
    struct kcp_collect *collect = calloc(1, sizeof(*collect));
    if (!collect)
        return NULL;
    collect->spare = malloc(room);
    if (!collect->spare) {
        free(collect);
        return NULL;
    }
    collect->room = room;
    collect->sink.open = collect_open;
    collect->sink.close = collect_close;
    return collect;
}

void kcp_collect_free(struct kcp_collect *collect)
{
    if (!collect)
        return;
    kcp_collect_clear(collect);
    if (collect->opened != collect->spare)
        free(collect->opened);
    free(collect->spare);
    free(collect->datagram);
    free(collect);
}

struct kcp_sink *kcp_collect_sink(struct kcp_collect *collect)
{
    return &collect->sink;
}

size_t kcp_collect_count(const struct kcp_collect *collect)
{
    return collect->count;
}

const uint8_t *kcp_collect_get(const struct kcp_collect *collect, size_t index, size_t *length)
{
    if (index >= collect->count)
        return NULL;
    *length = collect->datagram[index].length;
    return collect->datagram[index].data;
}

void kcp_collect_clear(struct kcp_collect *collect)
{
    for (size_t i = 0; i < collect->count; i++)
        free(collect->datagram[i].data);
    collect->count = 0;
}
