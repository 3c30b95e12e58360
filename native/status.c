#include "status.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#define INDEX_BITS 20
#define GENERATION_MASK 0xfffu

struct entry { /* shared with forked children */
    _Atomic uint32_t generation; /* which session the rest is about */
    _Atomic int32_t error;       /* errno not yet reported, or 0 */
    _Atomic uint32_t phase;      /* enum kcps_phase */
    _Atomic bool taking;         /* small sends may be left for it */
};

struct slot {            /* the owning process's own */
    void *object;        /* NULL: no session */
    uint32_t holders;    /* Python objects that may still ask */
    uint32_t next_free;  /* index in the queue of free slots */
    bool queued;         /* in that queue */
};

struct status_table {
    struct entry *entries;     /* STATUS_SLOTS of them, touched from the bottom up */
    struct slot *slots;        /* `capacity` of them */
    uint32_t capacity;         /* slots that have memory */
    uint32_t used;             /* slots ever used */
    uint32_t free_first, free_last, free_count; /* the queue of free slots */
    uint32_t tag;              /* upper half of every id */
    struct status_table *next; /* every table of this process and its ancestors */
};

static struct status_table *_Atomic tables;

struct status_table *status_table_new(void)
{
    struct status_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->entries = mmap(NULL, STATUS_SLOTS * sizeof *table->entries, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table->entries == MAP_FAILED) {
        free(table);
        return NULL;
    }
    while (table->tag == 0)
        if (getrandom(&table->tag, sizeof table->tag, 0) != sizeof table->tag)
            table->tag = 0;
    table->next = atomic_load(&tables);
    atomic_store(&tables, table);
    return table;
}

static uint32_t index_of(kcps_id id)
{
    return (uint32_t)id & (STATUS_SLOTS - 1);
}

static uint32_t generation_of(kcps_id id)
{
    return (uint32_t)id >> INDEX_BITS & GENERATION_MASK;
}

/* The entry of an id of `table`, or NULL when the id is another table's or its slot went to a later session. */
static struct entry *entry_of(const struct status_table *table, kcps_id id)
{
    struct entry *entry = &table->entries[index_of(id)];
    if (id >> 32 != table->tag || atomic_load(&entry->generation) != generation_of(id))
        return NULL;
    return entry;
}

static struct slot *slot_of(const struct status_table *table, kcps_id id)
{
    return index_of(id) < table->used && entry_of(table, id) ? &table->slots[index_of(id)] : NULL;
}

static void queue_free(struct status_table *table, uint32_t index)
{
    struct slot *slot = &table->slots[index];
    if (slot->object || slot->holders || slot->queued)
        return;
    slot->queued = true;
    if (table->free_count++)
        table->slots[table->free_last].next_free = index;
    else
        table->free_first = index;
    table->free_last = index;
}

/* The slot that has been free longest, skipping those that were claimed while they waited. */
static bool take_free(struct status_table *table, uint32_t *index)
{
    while (table->free_count > STATUS_REST || (table->free_count && table->used == STATUS_SLOTS)) {
        *index = table->free_first;
        struct slot *slot = &table->slots[*index];
        table->free_first = slot->next_free;
        table->free_count--;
        slot->queued = false;
        if (!slot->holders)
            return true;
    }
    return false;
}

static bool take_fresh(struct status_table *table, uint32_t *index)
{
    if (table->used == STATUS_SLOTS)
        return false;
    if (table->used == table->capacity) {
        uint32_t capacity = table->capacity ? table->capacity * 2 : 64;
        struct slot *slots = realloc(table->slots, capacity * sizeof *slots);
        if (!slots)
            return false;
        table->slots = slots;
        table->capacity = capacity;
    }
    *index = table->used++;
    table->slots[*index] = (struct slot){0};
    return true;
}

kcps_id status_open(struct status_table *table, void *object, enum kcps_phase phase)
{
    uint32_t index;
    if (!take_free(table, &index) && !take_fresh(table, &index))
        return 0;
    struct entry *entry = &table->entries[index];
    uint32_t generation = (atomic_load(&entry->generation) + 1) & GENERATION_MASK;
    atomic_store(&entry->error, 0);
    atomic_store(&entry->taking, false);
    atomic_store(&entry->phase, phase);
    atomic_store(&entry->generation, generation);
    table->slots[index].object = object;
    return (kcps_id)table->tag << 32 | generation << INDEX_BITS | index;
}

void *status_object(const struct status_table *table, kcps_id id)
{
    struct slot *slot = slot_of(table, id);
    return slot ? slot->object : NULL;
}

void status_close(struct status_table *table, kcps_id id)
{
    struct slot *slot = slot_of(table, id);
    if (!slot)
        return;
    atomic_store(&entry_of(table, id)->phase, KCPS_PHASE_CLOSED);
    atomic_store(&entry_of(table, id)->taking, false);
    slot->object = NULL;
    queue_free(table, index_of(id));
}

void status_claim(struct status_table *table, kcps_id id)
{
    struct slot *slot = slot_of(table, id);
    if (slot)
        slot->holders++;
}

void status_forget(struct status_table *table, kcps_id id)
{
    struct slot *slot = slot_of(table, id);
    if (slot && slot->holders) {
        slot->holders--;
        queue_free(table, index_of(id));
    }
}

void status_set_phase(struct status_table *table, kcps_id id, enum kcps_phase phase)
{
    struct entry *entry = entry_of(table, id);
    if (entry)
        atomic_store(&entry->phase, phase);
}

void status_set_error(struct status_table *table, kcps_id id, int error)
{
    struct entry *entry = entry_of(table, id);
    if (entry)
        atomic_store(&entry->error, error);
}

void status_set_taking(struct status_table *table, kcps_id id, bool taking)
{
    struct entry *entry = entry_of(table, id);
    if (entry)
        atomic_store(&entry->taking, taking);
}

bool status_taking(const struct status_table *table, kcps_id id)
{
    const struct entry *entry = entry_of(table, id);
    return entry && atomic_load(&entry->taking);
}

static struct entry *find(kcps_id id)
{
    for (struct status_table *table = atomic_load(&tables); table; table = table->next)
        if (id >> 32 == table->tag)
            return entry_of(table, id);
    return NULL;
}

int status_error(kcps_id id, bool clear)
{
    struct entry *entry = find(id);
    if (!entry)
        return 0;
    return clear ? atomic_exchange(&entry->error, 0) : atomic_load(&entry->error);
}

enum kcps_phase status_phase(kcps_id id)
{
    struct entry *entry = find(id);
    return entry ? (enum kcps_phase)atomic_load(&entry->phase) : KCPS_PHASE_NONE;
}
