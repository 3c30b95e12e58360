#define _DEFAULT_SOURCE

#include "pool.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Under AddressSanitizer a free buffer is out of bounds, all but the link to the next one. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GUARD(buffer) ASAN_POISON_MEMORY_REGION((buffer) + sizeof(void *), POOL_BUFFER - sizeof(void *))
#define UNGUARD(buffer, length) ASAN_UNPOISON_MEMORY_REGION((buffer), (length))
#else
#define GUARD(buffer) ((void)0)
#define UNGUARD(buffer, length) ((void)0)
#endif

/* Slabs are aligned to their own size, so that a buffer's address leads to its slab. */
#define SLAB_BYTES ((size_t)128 * 1024)
#define SLAB_HEADER 64 /* bytes before the first buffer: keeps buffers on cache lines */
#define SLAB_BUFFERS ((SLAB_BYTES - SLAB_HEADER) / POOL_BUFFER)

struct slab {
    struct slab *next, *previous; /* in the pool's list of usable or of full slabs */
    uint8_t *free;                /* buffers that came back, linked through their first bytes */
    uint32_t carved;              /* buffers handed out at least once; those behind have never been touched */
    uint32_t used;                /* buffers handed out now */
};

struct list {
    struct slab *first, *last;
};

struct pool {
    struct list usable; /* slabs with a free buffer; wholly free ones last, so that they stay free */
    struct list full;   /* slabs without */
    size_t slabs;       /* in both lists */
    size_t used;        /* buffers handed out */
    size_t limit;       /* buffers that may be handed out at once */
};

_Static_assert(sizeof(struct slab) <= SLAB_HEADER, "a slab's header must fit before its first buffer");

static void unlink_slab(struct list *list, struct slab *slab)
{
    *(slab->previous ? &slab->previous->next : &list->first) = slab->next;
    *(slab->next ? &slab->next->previous : &list->last) = slab->previous;
}

static void link_first(struct list *list, struct slab *slab)
{
    slab->previous = NULL;
    slab->next = list->first;
    *(list->first ? &list->first->previous : &list->last) = slab;
    list->first = slab;
}

static void link_last(struct list *list, struct slab *slab)
{
    slab->next = NULL;
    slab->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = slab;
    list->last = slab;
}

/* Maps twice the size and cuts off what lies outside the aligned half. malloc would keep freed slabs for itself. */
static struct slab *map_slab(void)
{
    uint8_t *map = mmap(NULL, 2 * SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)map & (SLAB_BYTES - 1);
    if (before > 0)
        munmap(map, before);
    munmap(map + before + SLAB_BYTES, SLAB_BYTES - before);
    return (struct slab *)(map + before);
}

static void unmap_slab(struct slab *slab)
{
    UNGUARD((uint8_t *)slab, SLAB_BYTES);
    munmap(slab, SLAB_BYTES);
}

static void unmap_all(struct list *list)
{
    while (list->first) {
        struct slab *slab = list->first;
        unlink_slab(list, slab);
        unmap_slab(slab);
    }
}

struct pool *pool_new(void)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool)
        pool->limit = SIZE_MAX;
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    unmap_all(&pool->usable);
    unmap_all(&pool->full);
    free(pool);
}

void pool_limit(struct pool *pool, size_t buffers)
{
    pool->limit = buffers;
}

uint8_t *pool_get(struct pool *pool)
{
    if (pool->used >= pool->limit)
        return NULL;
    struct slab *slab = pool->usable.first;
    if (!slab) {
        slab = map_slab();
        if (!slab)
            return NULL;
        link_first(&pool->usable, slab);
        pool->slabs++;
    }
    uint8_t *buffer = slab->free;
    if (buffer) {
        slab->free = *(uint8_t **)buffer;
        UNGUARD(buffer, POOL_BUFFER);
    } else {
        buffer = (uint8_t *)slab + SLAB_HEADER + (size_t)slab->carved * POOL_BUFFER;
        slab->carved++;
    }
    pool->used++;
    slab->used++;
    if (slab->used == SLAB_BUFFERS) {
        unlink_slab(&pool->usable, slab);
        link_first(&pool->full, slab);
    }
    return buffer;
}

void pool_put(struct pool *pool, uint8_t *buffer)
{
    struct slab *slab = (struct slab *)((uintptr_t)buffer & ~(uintptr_t)(SLAB_BYTES - 1));
    *(uint8_t **)buffer = slab->free;
    slab->free = buffer;
    GUARD(buffer);
    if (slab->used == SLAB_BUFFERS) {
        unlink_slab(&pool->full, slab);
        link_first(&pool->usable, slab);
    }
    slab->used--;
    pool->used--;
    if (slab->used == 0) {
        unlink_slab(&pool->usable, slab);
        link_last(&pool->usable, slab);
    }
}

void pool_trim(struct pool *pool)
{
    /* Wholly free slabs are the last of the list: stop at the first that is not, or at the one to keep. */
    struct slab *slab = pool->usable.last;
    while (slab && slab->used == 0 && slab->previous && slab->previous->used == 0) {
        unlink_slab(&pool->usable, slab);
        unmap_slab(slab);
        pool->slabs--;
        slab = pool->usable.last;
    }
}

size_t pool_in_use(const struct pool *pool)
{
    return pool->used;
}

size_t pool_bytes(const struct pool *pool)
{
    return pool->slabs * SLAB_BYTES;
}
