/* CORE. The filter of filter.h. It is read in two walks: the first checks every byte and finds
 * where the lists begin, the second compares names; so nobody is admitted by the sound first half
 * of a broken filter, and memory is taken for names that were counted. */
#include "proto/filter.h"

#include <msgpack.h>

#include "common/mem.h"
#include "common/mutant.h"
#include "proto/mp.h"

enum list { LIST_EXCEPT, LIST_TO, LIST_TAGS, LISTS };
static const char *const list_keys[LISTS] = {"except", "to", "tags"};

/* A list as it lies in the bytes. */
struct run {
    struct mp names; /* `count` of them */
    size_t count;
    bool given;
};

/* ---- writing ---- */

static int write_to_strbuf(void *data, const char *bytes, size_t size)
{
    struct strbuf *out = data;
    strbuf_put(out, bytes, size);
    return 0;
}

static void put_str(msgpack_packer *pk, struct slice s)
{
    msgpack_pack_str(pk, s.size);
    if (s.size > 0)
        msgpack_pack_str_body(pk, s.data, s.size);
}

int filter_encode(struct strbuf *out, const struct filter *f)
{
    const struct filter_names *lists[LISTS] = {&f->except, &f->to, &f->tags};
    size_t before = out->size, given = 0;
    for (enum list i = 0; i < LISTS; i++)
        given += lists[i]->at != NULL;
    if (given == 0)
        return ERR_OK;
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_to_strbuf);
    msgpack_pack_map(&pk, given);
    for (enum list i = 0; i < LISTS; i++) {
        if (lists[i]->at == NULL)
            continue;
        put_str(&pk, slice_text(list_keys[i]));
        msgpack_pack_array(&pk, lists[i]->count);
        for (size_t k = 0; k < lists[i]->count && out->size - before <= FILTER_MAX_BYTES; k++)
            put_str(&pk, lists[i]->at[k]);
    }
    if (out->size - before <= FILTER_MAX_BYTES)
        return ERR_OK;
    out->size = before;
    return ERR_TOO_LARGE;
}

/* ---- reading ---- */

static int read_list(struct mp *r, struct run runs[LISTS])
{
    struct slice key, name;
    size_t count = 0;
    enum list which = 0;
    TRY(mp_str(r, FILTER_MAX_BYTES, &key));
    while (which < LISTS && !slice_is(key, list_keys[which]))
        which++;
    if (which == LISTS || runs[which].given)
        return ERR_INVALID;
    TRY(mp_array(r, FILTER_MAX_BYTES, &count));
    runs[which] = (struct run){*r, count, true};
    for (size_t i = 0; i < count; i++)
        TRY(mp_str(r, FILTER_MAX_BYTES, &name));
    return ERR_OK;
}

static int read_lists(struct slice bytes, struct run runs[LISTS])
{
    for (enum list i = 0; i < LISTS; i++)
        runs[i] = (struct run){0};
    if (bytes.size == 0)
        return ERR_OK;
    if (bytes.size > FILTER_MAX_BYTES)
        return ERR_INVALID;
    struct mp r = mp_of(bytes);
    size_t lists = 0;
    if (mp_map(&r, LISTS, &lists) != ERR_OK)
        return ERR_INVALID;
    for (size_t i = 0; i < lists; i++) {
        if (read_list(&r, runs) != ERR_OK)
            return ERR_INVALID;
    }
    return mp_end(&r) ? ERR_OK : ERR_INVALID;
}

/* The next name of a run that read_lists has checked. */
static struct slice next_name(struct run *run)
{
    struct slice name = {0};
    int code = mp_str(&run->names, FILTER_MAX_BYTES, &name);
    STOA_ASSERT(code == ERR_OK);
    return name;
}

int filter_decode(struct slice bytes, struct message_arena *arena, struct filter *out)
{
    struct run runs[LISTS];
    struct filter_names *lists[LISTS] = {&out->except, &out->to, &out->tags};
    *out = (struct filter){0};
    TRY(read_lists(bytes, runs));
    size_t names = 1; /* so that a list without a name has an address too */
    for (enum list i = 0; i < LISTS; i++)
        names += runs[i].count;
    if (arena->capacity < names * sizeof(struct slice)) {
        message_arena_free(arena);
        arena->memory = mem_alloc(names * sizeof(struct slice));
        arena->capacity = names * sizeof(struct slice);
    }
    struct slice *at = arena->memory;
    for (enum list i = 0; i < LISTS; i++) {
        if (!runs[i].given)
            continue;
        *lists[i] = (struct filter_names){at, runs[i].count};
        for (size_t k = 0; k < lists[i]->count; k++)
            *at++ = next_name(&runs[i]);
    }
    return ERR_OK;
}

/* ---- asking ---- */

static bool names_any(struct run run, const struct slice *who, size_t n_who)
{
    for (size_t i = 0; i < run.count; i++) {
        struct slice name = next_name(&run);
        for (size_t k = 0; k < n_who; k++) {
            if (slice_equal(name, who[k]))
                return true;
        }
    }
    return false;
}

bool filter_admits(struct slice filter, struct slice session, struct slice id,
                   const struct slice *tags, size_t n_tags)
{
    if (filter.size == 0)
        return true;
    struct run runs[LISTS];
    struct slice who[2];
    size_t n_who = 0;
    if (session.size > 0)
        who[n_who++] = session;
    if (id.size > 0 || STOA_MUTANT(UNNAMED_IS_MEANT))
        who[n_who++] = id;
    if (read_lists(filter, runs) != ERR_OK || names_any(runs[LIST_EXCEPT], who, n_who))
        return false;
    if (runs[LIST_TO].given && !names_any(runs[LIST_TO], who, n_who))
        return false;
    return !runs[LIST_TAGS].given || names_any(runs[LIST_TAGS], tags, n_tags);
}

bool filter_chooses(struct slice filter)
{
    struct run runs[LISTS];
    return read_lists(filter, runs) == ERR_OK && (runs[LIST_TO].given || runs[LIST_TAGS].given);
}
