/* CORE. Whom a publish is for, as its publisher says it (`tags`, `to`, `except`), into a filter
 * (proto/filter.h). Filters decide who may see an event: what cannot be understood is refused,
 * never given to all.
 *
 * In a query a list is names separated by commas, each percent-encoded. Where no bare comma stands
 * in the value, encoded ones separate too: that is how form encoders write `a,b`. Empty names are
 * nothing, so `to=a%2Cb,` means the one id `a,b`, and `to=` nobody. */
#include "common/utf8.h"
#include "gateway/core.h"
#include "proto/filter.h"

enum { LIST_TAGS, LIST_TO, LIST_EXCEPT, LISTS };

struct list_words {
    struct strbuf text; /* what the names point into */
    struct slice *at;   /* NULL: not given */
    size_t count;
};

static void lists_free(struct list_words lists[LISTS])
{
    for (size_t i = 0; i < LISTS; i++) {
        strbuf_free(&lists[i].text);
        mem_free(lists[i].at);
    }
}

static const char *lists_encode(const struct list_words lists[LISTS], struct strbuf *out,
                                const char **message)
{
    const struct list_words *except = &lists[LIST_EXCEPT];
    const struct filter filter = {
        .tags = {lists[LIST_TAGS].at, lists[LIST_TAGS].count},
        .to = {lists[LIST_TO].at, lists[LIST_TO].count},
        .except = {except->count > 0 ? except->at : NULL, except->count},
    };
    if (filter_encode(out, &filter) == ERR_OK)
        return NULL;
    *message = "tags, to and except are together at most 4096 bytes: publish to fewer names at a "
               "time, or to a tag that they have";
    return "TooLarge";
}

/* ---- of a query ---- */

static size_t commas(struct slice text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++)
        n += text.data[i] == ',';
    return n;
}

/* Decodes what stands between bare commas; the ends of names go to `ends`, of which there are
 * commas + 1. */
static bool names_decode(struct slice raw, struct strbuf *text, size_t *ends)
{
    size_t n = 0;
    for (size_t from = 0; from <= raw.size; n++) {
        const uint8_t *comma =
            from < raw.size ? memchr(raw.data + from, ',', raw.size - from) : NULL;
        size_t end = comma ? (size_t)(comma - raw.data) : raw.size;
        if (http_decode(slice_of(raw.data + from, end - from), true, text) != ERR_OK)
            return false;
        ends[n] = text->size;
        from = end + 1;
    }
    return true;
}

/* The names between `ends`, or (one end) between the commas of the text. */
static void names_split(struct list_words *list, const size_t *ends, size_t n)
{
    struct slice text = strbuf_slice(&list->text);
    size_t most = n > 1 ? n : commas(text) + 1;
    list->at = mem_alloc(most * sizeof *list->at);
    for (size_t from = 0, i = 0; i < most; i++) {
        size_t end = n > 1 ? ends[i] : from;
        while (n == 1 && end < text.size && text.data[end] != ',')
            end++;
        if (end > from)
            list->at[list->count++] = slice_of(text.data + from, end - from);
        from = n > 1 ? end : end + 1;
    }
}

static bool list_of_raw(struct slice raw, struct list_words *list)
{
    size_t n = commas(raw) + 1;
    size_t *ends = mem_alloc(n * sizeof *ends);
    bool fine = names_decode(raw, &list->text, ends);
    if (fine)
        names_split(list, ends, n);
    for (size_t i = 0; fine && i < list->count; i++)
        fine = utf8_valid(list->at[i]);
    mem_free(ends);
    return fine;
}

const char *filter_of_query(struct slice query, struct strbuf *out, const char **message)
{
    static const char *const words[LISTS][2] = {[LIST_TAGS] = {"tags", NULL},
                                                [LIST_TO] = {"to", "targets"},
                                                [LIST_EXCEPT] = {"except", "exclude"}};
    struct list_words lists[LISTS] = {0};
    const char *tag = NULL;
    for (size_t i = 0; i < LISTS && !tag; i++) {
        for (size_t k = 0; k < 2 && words[i][k] && !tag; k++) {
            struct slice raw;
            int found = http_query_raw(query, words[i][k], &raw);
            if (found == ERR_NOT_FOUND)
                continue;
            if (found != ERR_OK || lists[i].at || !list_of_raw(raw, &lists[i]))
                tag = "BadRequest";
        }
    }
    *message = "tags, to (or targets) and except (or exclude): each at most once, names of UTF-8 "
               "separated by commas and percent-encoded";
    if (!tag)
        tag = lists_encode(lists, out, message);
    lists_free(lists);
    return tag;
}

/* ---- of a stoa.v1 frame ---- */

static bool list_of_array(struct json_value array, struct list_words *list)
{
    if (array.type == JSON_NONE)
        return true;
    size_t n = 0;
    struct json_iter it = json_members(array.raw);
    while (array.type == JSON_ARRAY && json_next(&it))
        n++;
    list->at = mem_alloc((n + 1) * sizeof *list->at);
    return json_texts(array.raw, &list->text, list->at, n, &list->count);
}

const char *filter_of_arrays(struct json_value tags, struct json_value to, struct json_value except,
                             struct strbuf *out, const char **message)
{
    struct list_words lists[LISTS] = {0};
    const char *tag = NULL;
    *message = "tags, to and except: arrays of strings";
    if (!list_of_array(tags, &lists[LIST_TAGS]) || !list_of_array(to, &lists[LIST_TO]) ||
        !list_of_array(except, &lists[LIST_EXCEPT]))
        tag = "BadRequest";
    else
        tag = lists_encode(lists, out, message);
    lists_free(lists);
    return tag;
}
