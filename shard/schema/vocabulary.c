/* CORE. One walk over a schema: it checks each keyword, writes what the engine gets, and notes
 * where schemas stand and which lead to which on the spot (allOf, $ref, ...). When all is read,
 * references must meet a schema, and leading on the spot must not go in circles: there the engine
 * would never end.
 *
 * What is not a keyword of draft 7 is refused rather than ignored: a misspelt one would let
 * everything pass. */
#include "shard/schema/vocabulary.h"

#include <string.h>

#include "common/json.h"
#include "common/map.h"
#include "shard/schema/engine.h"
#include "shard/vec.h"

#define QUOTED_MAX 200 /* bytes of a schema in a message */

enum shape {
    SHAPE_SCHEMA,
    SHAPE_SCHEMAS,      /* a list of them */
    SHAPE_NAMED,        /* an object of them */
    SHAPE_ITEMS,        /* one or a list */
    SHAPE_DEPENDENCIES, /* an object of them or of lists of names */
    SHAPE_NUMBER,
    SHAPE_POSITIVE,
    SHAPE_COUNT,
    SHAPE_BOOL,
    SHAPE_TYPE,
    SHAPE_NAMES,
    SHAPE_ENUM,
    SHAPE_ANY,
    SHAPE_PATTERN,
    SHAPE_FORMAT,
    SHAPE_REF,
    SHAPE_DRAFT,
    SHAPE_ID,
    SHAPE_TEXT,
};

struct keyword {
    const char *name;
    enum shape shape;
    bool on_the_spot; /* its schemas judge the same value */
    bool weighs;      /* a visit costs more by its entries */
    bool beside_ref;  /* may stand there */
};

static const struct keyword keywords[] = {
    {"$ref", SHAPE_REF, true, false, true},
    {"$schema", SHAPE_DRAFT, false, false, true},
    {"$id", SHAPE_ID, false, false, true},
    {"$comment", SHAPE_TEXT, false, false, true},
    {"title", SHAPE_TEXT, false, false, true},
    {"description", SHAPE_TEXT, false, false, true},
    {"default", SHAPE_ANY, false, false, true},
    {"examples", SHAPE_ANY, false, false, true},
    {"readOnly", SHAPE_BOOL, false, false, true},
    {"writeOnly", SHAPE_BOOL, false, false, true},
    {"contentEncoding", SHAPE_TEXT, false, false, true},
    {"contentMediaType", SHAPE_TEXT, false, false, true},
    {"definitions", SHAPE_NAMED, false, false, true},
    {"$defs", SHAPE_NAMED, false, false, true},
    {"type", SHAPE_TYPE, false, false, false},
    {"enum", SHAPE_ENUM, false, true, false},
    {"const", SHAPE_ANY, false, false, false},
    {"format", SHAPE_FORMAT, false, false, false},
    {"multipleOf", SHAPE_POSITIVE, false, false, false},
    {"maximum", SHAPE_NUMBER, false, false, false},
    {"exclusiveMaximum", SHAPE_NUMBER, false, false, false},
    {"minimum", SHAPE_NUMBER, false, false, false},
    {"exclusiveMinimum", SHAPE_NUMBER, false, false, false},
    {"maxLength", SHAPE_COUNT, false, false, false},
    {"minLength", SHAPE_COUNT, false, false, false},
    {"pattern", SHAPE_PATTERN, false, false, false},
    {"items", SHAPE_ITEMS, false, false, false},
    {"additionalItems", SHAPE_SCHEMA, false, false, false},
    {"maxItems", SHAPE_COUNT, false, false, false},
    {"minItems", SHAPE_COUNT, false, false, false},
    {"uniqueItems", SHAPE_BOOL, false, false, false},
    {"contains", SHAPE_SCHEMA, false, false, false},
    {"maxProperties", SHAPE_COUNT, false, false, false},
    {"minProperties", SHAPE_COUNT, false, false, false},
    {"required", SHAPE_NAMES, false, true, false},
    {"properties", SHAPE_NAMED, false, true, false},
    {"patternProperties", SHAPE_NAMED, false, true, false},
    {"additionalProperties", SHAPE_SCHEMA, false, false, false},
    {"propertyNames", SHAPE_SCHEMA, false, false, false},
    {"dependencies", SHAPE_DEPENDENCIES, true, true, false},
    {"if", SHAPE_SCHEMA, true, false, false},
    {"then", SHAPE_SCHEMA, true, false, false},
    {"else", SHAPE_SCHEMA, true, false, false},
    {"allOf", SHAPE_SCHEMAS, true, false, false},
    {"anyOf", SHAPE_SCHEMAS, true, false, false},
    {"oneOf", SHAPE_SCHEMAS, true, false, false},
    {"not", SHAPE_SCHEMA, true, false, false},
};
#define N_KEYWORDS (sizeof keywords / sizeof *keywords)
_Static_assert(N_KEYWORDS <= 64, "a schema's keywords are a set of bits");

/* Where a schema stands: its JSON pointer. */
struct location {
    char *pointer;
    size_t size;
    size_t ways; /* that lead to it on the spot and are still open */
    bool done;
};
struct way {
    struct location *from, *to;
    struct slice ref; /* `to` is what it names; empty: known */
};

struct walk {
    struct strbuf *out, *why;
    struct strbuf pointer, name;
    struct map *by_pointer; /* struct location */
    struct vec locations;   /* struct location *, owned */
    struct vec ways;        /* struct way */
    vocabulary_pattern *pattern;
    void *arg;
};

/* A schema that is being read. */
struct reading {
    struct slice text;
    struct location *location;
    uint64_t seen;     /* bit i: keywords[i] */
    uint64_t weight;   /* of a visit */
    bool unique;       /* uniqueItems */
    bool begun;        /* something is written */
    struct slice all;  /* its allOf */
    struct slice date; /* its format, if it is one that is checked */
};

static bool walk_schema(struct walk *w, struct slice text, struct location *user);

/* ---- where ---- */

static void say_where(struct walk *w, struct slice pointer)
{
    if (pointer.size > 0)
        strbuf_printf(w->why, "at %.*s: ", SLICE_FMT(pointer));
    else
        strbuf_put_text(w->why, "at the root: ");
}

static bool refuse(struct walk *w, const char *what)
{
    say_where(w, strbuf_slice(&w->pointer));
    strbuf_put_text(w->why, what);
    return false;
}

static bool refuse_that(struct walk *w, const char *what, struct slice that)
{
    (void)refuse(w, what);
    strbuf_printf(w->why, " `%.*s`", (int)(that.size < QUOTED_MAX ? that.size : QUOTED_MAX),
                  (const char *)that.data);
    return false;
}

/* One step down; the way back is the size from before. */
static size_t step_into(struct walk *w, struct slice name)
{
    size_t before = w->pointer.size;
    strbuf_put_byte(&w->pointer, '/');
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] == '~' || name.data[i] == '/')
            strbuf_put_text(&w->pointer, name.data[i] == '~' ? "~0" : "~1");
        else
            strbuf_put_byte(&w->pointer, name.data[i]);
    }
    return before;
}

static size_t step_into_item(struct walk *w, size_t i)
{
    size_t before = w->pointer.size;
    strbuf_put_byte(&w->pointer, '/');
    strbuf_put_u64(&w->pointer, i);
    return before;
}

static void step_out(struct walk *w, size_t before)
{
    w->pointer.size = before;
}

/* The iterated member's name, unescaped; the walk's until the next. */
static struct slice member_name(struct walk *w, const struct json_iter *it)
{
    const struct json_value quoted = {.type = JSON_STRING,
                                      .raw = slice_of(it->name.data - 1, it->name.size + 2)};
    strbuf_reset(&w->name);
    (void)json_unescape(quoted, &w->name);
    return strbuf_slice(&w->name);
}

static struct location *location_add(struct walk *w)
{
    struct slice pointer = strbuf_slice(&w->pointer);
    if (map_get(w->by_pointer, pointer)) {
        (void)refuse(w, "it stands there twice");
        return NULL;
    }
    if (w->locations.count == SCHEMA_PLACES_MAX) {
        (void)refuse(w, "too many schemas within one");
        return NULL;
    }
    struct location *l = (struct location *)mem_zalloc(sizeof *l);
    l->pointer = (char *)mem_alloc(pointer.size + 1);
    if (pointer.size > 0)
        memcpy(l->pointer, pointer.data, pointer.size);
    l->size = pointer.size;
    *VEC_PUSH(&w->locations, struct location *) = l;
    map_put(w->by_pointer, slice_of(l->pointer, l->size), l);
    return l;
}

static bool take_pattern(struct walk *w, struct slice text)
{
    struct strbuf said = {0};
    bool fine = w->pattern(w->arg, text, &said);
    if (!fine)
        (void)refuse(w, strbuf_cstr(&said));
    strbuf_free(&said);
    return fine;
}

/* ---- schemas within a schema ---- */

static bool walk_list(struct walk *w, struct slice list, struct location *user)
{
    struct json_iter it = json_members(list);
    size_t i = 0;
    while (json_next(&it)) {
        size_t before = step_into_item(w, i);
        if (i++ > 0)
            strbuf_put_byte(w->out, ',');
        if (!walk_schema(w, it.value.raw, user))
            return false;
        step_out(w, before);
    }
    return i > 0 || refuse(w, "the list is empty");
}

static bool names_fit(struct walk *w, struct slice list)
{
    struct json_iter it = json_members(list);
    bool fine = json_type_of(list) == JSON_ARRAY;
    while (fine && json_next(&it))
        fine = it.value.type == JSON_STRING;
    return fine || refuse(w, "it is a list of names");
}

static bool walk_named(struct walk *w, struct slice object, bool patterns, bool or_names,
                       struct location *user)
{
    struct json_iter it = json_members(object);
    for (bool first = true; json_next(&it); first = false) {
        struct slice name = member_name(w, &it);
        size_t before = step_into(w, name);
        if (patterns && !take_pattern(w, name))
            return false;
        strbuf_put_text(w->out, first ? "\"" : ",\"");
        strbuf_put_slice(w->out, it.name);
        strbuf_put_text(w->out, "\":");
        bool names = or_names && it.value.type == JSON_ARRAY;
        if (names ? !names_fit(w, it.value.raw) : !walk_schema(w, it.value.raw, user))
            return false;
        if (names)
            strbuf_put_slice(w->out, it.value.raw);
        step_out(w, before);
    }
    return true;
}

/* ---- keywords ---- */

static bool is_type(struct walk *w, struct json_value v)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    strbuf_reset(&w->name);
    if (!json_unescape(v, &w->name))
        return refuse(w, "a type is a name, or a list of names");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (slice_is(strbuf_slice(&w->name), names[i]))
            return true;
    }
    return refuse_that(w, "no type is called", strbuf_slice(&w->name));
}

static bool type_fits(struct walk *w, struct json_value v)
{
    if (v.type != JSON_ARRAY)
        return is_type(w, v);
    struct json_iter it = json_members(v.raw);
    size_t n = 0;
    for (; json_next(&it); n++) {
        if (!is_type(w, it.value))
            return false;
    }
    return n > 0 || refuse(w, "the list is empty");
}

/* Above 0 by its digits, exponent aside. */
static bool is_positive(struct json_value v)
{
    if (v.type != JSON_NUMBER || v.raw.data[0] == '-')
        return false;
    for (size_t i = 0; i < v.raw.size && v.raw.data[i] != 'e' && v.raw.data[i] != 'E'; i++) {
        if (v.raw.data[i] >= '1' && v.raw.data[i] <= '9')
            return true;
    }
    return false;
}

static bool draft_fits(struct walk *w, struct json_value v)
{
    static const char *const known[] = {
        "http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft-07/schema#"};
    strbuf_reset(&w->name);
    for (size_t i = 0; json_unescape(v, &w->name) && i < sizeof known / sizeof *known; i++) {
        if (slice_is(strbuf_slice(&w->name), known[i]))
            return true;
        strbuf_reset(&w->name);
    }
    return refuse_that(
        w, "only draft 7, http://json-schema.org/draft-07/schema#, is understood, not", v.raw);
}

static bool ref_fits(struct walk *w, struct reading *r, struct json_value v)
{
    strbuf_reset(&w->name);
    if (!json_unescape(v, &w->name) || w->name.size == 0 || w->name.data[0] != '#' ||
        (w->name.size > 1 && w->name.data[1] != '/'))
        return refuse_that(
            w, "it refers to a schema of the same file, as in \"#/definitions/name\", not", v.raw);
    *VEC_PUSH(&w->ways, struct way) = (struct way){.from = r->location, .ref = v.raw};
    return true;
}

static bool pattern_fits(struct walk *w, struct json_value v)
{
    strbuf_reset(&w->name);
    if (!json_unescape(v, &w->name))
        return refuse(w, "it is a text");
    return take_pattern(w, strbuf_slice(&w->name));
}

static void format_note(struct reading *r, struct slice format)
{
    static const char *const checked[] = {"\"date\"", "\"time\"", "\"date-time\""};
    for (size_t i = 0; i < sizeof checked / sizeof *checked; i++) {
        if (slice_is(format, checked[i]))
            r->date = format;
    }
}

/* Values that are not schemas. */
static bool value_fits(struct walk *w, struct reading *r, const struct keyword *k,
                       struct json_value v)
{
    uint64_t count;
    bool text = v.type == JSON_STRING;
    switch (k->shape) {
    case SHAPE_NUMBER:
        return v.type == JSON_NUMBER || refuse(w, "it is a number");
    case SHAPE_POSITIVE:
        return is_positive(v) || refuse(w, "it is a number above 0");
    case SHAPE_COUNT:
        return json_u64(v, &count) || refuse(w, "it is a count: 0, 1, ...");
    case SHAPE_BOOL:
        return v.type == JSON_TRUE || v.type == JSON_FALSE || refuse(w, "it is true or false");
    case SHAPE_TYPE:
        return type_fits(w, v);
    case SHAPE_NAMES:
        return names_fit(w, v.raw);
    case SHAPE_ENUM:
        return v.type == JSON_ARRAY || refuse(w, "it is a list of values");
    case SHAPE_PATTERN:
        return pattern_fits(w, v);
    case SHAPE_FORMAT:
        format_note(r, v.raw);
        return text || refuse(w, "it is a text");
    case SHAPE_REF:
        return ref_fits(w, r, v);
    case SHAPE_DRAFT:
        return draft_fits(w, v);
    case SHAPE_ID:
        return (text && w->pointer.size == strlen("/$id")) ||
               refuse(w, "a name of the whole is a text and stands at the root");
    case SHAPE_TEXT:
        return text || refuse(w, "it is a text");
    default:
        return true;
    }
}

static bool is_annotation(const struct keyword *k)
{
    return k->beside_ref && k->shape != SHAPE_REF && k->shape != SHAPE_NAMED;
}

static void write_name(struct walk *w, struct reading *r, const char *name)
{
    strbuf_printf(w->out, "%s\"%s\":", r->begun ? "," : "", name);
    r->begun = true;
}

static bool walk_schemas(struct walk *w, struct reading *r, const struct keyword *k,
                         struct json_value v)
{
    struct location *user = k->on_the_spot ? r->location : NULL;
    bool list = k->shape == SHAPE_SCHEMAS || (k->shape == SHAPE_ITEMS && v.type == JSON_ARRAY);
    bool named = k->shape == SHAPE_NAMED || k->shape == SHAPE_DEPENDENCIES;
    if (list && v.type != JSON_ARRAY)
        return refuse(w, "it is a list of schemas");
    if (named && v.type != JSON_OBJECT)
        return refuse(w, "it is an object of schemas");
    write_name(w, r, k->name);
    if (!list && !named)
        return walk_schema(w, v.raw, user);
    strbuf_put_byte(w->out, list ? '[' : '{');
    bool fine = list ? walk_list(w, v.raw, user)
                     : walk_named(w, v.raw, strcmp(k->name, "patternProperties") == 0,
                                  k->shape == SHAPE_DEPENDENCIES, user);
    strbuf_put_byte(w->out, list ? ']' : '}');
    return fine;
}

static uint64_t entries(struct slice text)
{
    uint64_t n = 0;
    for (struct json_iter it = json_members(text); json_next(&it);)
        n++;
    return n;
}

static bool walk_keyword(struct walk *w, struct reading *r, const struct keyword *k,
                         struct json_value v)
{
    if (k->weighs && (v.type == JSON_ARRAY || v.type == JSON_OBJECT))
        r->weight += entries(v.raw);
    if (strcmp(k->name, "uniqueItems") == 0)
        r->unique = v.type == JSON_TRUE;
    if (strcmp(k->name, "allOf") == 0) {
        r->all = v.raw; /* written last, with what is added */
        return v.type == JSON_ARRAY || refuse(w, "it is a list of schemas");
    }
    if (k->shape <= SHAPE_DEPENDENCIES)
        return walk_schemas(w, r, k, v);
    if (!value_fits(w, r, k, v))
        return false;
    if (is_annotation(k) || k->shape == SHAPE_FORMAT)
        return true;
    write_name(w, r, k->name);
    strbuf_put_slice(w->out, v.raw);
    return true;
}

/* ---- a schema ---- */

static const struct keyword *keyword_of(struct slice name)
{
    for (size_t i = 0; i < N_KEYWORDS; i++) {
        if (slice_is(name, keywords[i].name))
            return &keywords[i];
    }
    return NULL;
}

static bool walk_members(struct walk *w, struct reading *r)
{
    struct json_iter it = json_members(r->text);
    bool has_ref = json_get(r->text, "$ref").type != JSON_NONE;
    while (json_next(&it)) {
        struct slice name = member_name(w, &it);
        const struct keyword *k = keyword_of(name);
        if (!k)
            return refuse_that(w, "unknown keyword", name);
        if (r->seen & (UINT64_C(1) << (k - keywords)))
            return refuse_that(w, "twice in one schema:", name);
        if (has_ref && !k->beside_ref)
            return refuse_that(w,
                               "beside $ref, which belongs into an allOf of its own then, nothing "
                               "has an effect, such as",
                               name);
        r->seen |= UINT64_C(1) << (k - keywords);
        size_t before = step_into(w, name);
        if (!walk_keyword(w, r, k, it.value))
            return false;
        step_out(w, before);
    }
    return true;
}

/* Behind its own allOf: the formats that are checked, which the engine would ask of numbers too,
 * and what counts the visit. */
static bool write_all_of(struct walk *w, struct reading *r)
{
    write_name(w, r, "allOf");
    strbuf_put_byte(w->out, '[');
    if (r->all.size > 0) {
        size_t before = step_into(w, slice_text("allOf"));
        if (!walk_list(w, r->all, r->location))
            return false;
        step_out(w, before);
        strbuf_put_byte(w->out, ',');
    }
    if (r->date.size > 0)
        strbuf_printf(w->out, "{\"if\":{\"type\":\"string\"},\"then\":{\"format\":%.*s}},",
                      SLICE_FMT(r->date));
    strbuf_printf(w->out, "{\"%s\":[%llu,%s]}]", STEP_KEYWORD, (unsigned long long)r->weight,
                  r->unique ? "true" : "false");
    return true;
}

/* `user`: whose value it judges as well, NULL: another's. */
static bool walk_schema(struct walk *w, struct slice text, struct location *user)
{
    enum json_type type = json_type_of(text);
    if (type != JSON_OBJECT && type != JSON_TRUE && type != JSON_FALSE)
        return refuse(w, "a schema is an object, true or false");
    struct reading r = {.text = text, .location = location_add(w), .weight = 1};
    if (!r.location)
        return false;
    if (user)
        *VEC_PUSH(&w->ways, struct way) = (struct way){.from = user, .to = r.location};
    if (type == JSON_FALSE) {
        strbuf_put_text(w->out, "false");
        return true;
    }
    strbuf_put_byte(w->out, '{');
    if (type == JSON_OBJECT && !walk_members(w, &r))
        return false;
    bool is_ref = (r.seen & 1) != 0;
    if (!is_ref && !write_all_of(w, &r))
        return false;
    strbuf_put_byte(w->out, '}');
    return true;
}

/* ---- what leads where ---- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The pointer of "#/a%20b". */
static struct slice ref_pointer(struct walk *w, struct slice raw)
{
    strbuf_reset(&w->name);
    (void)json_unescape((struct json_value){.type = JSON_STRING, .raw = raw}, &w->name);
    size_t to = 0;
    uint8_t *at = w->name.data;
    for (size_t i = 1; i < w->name.size; i++) {
        int high = at[i] == '%' && i + 2 < w->name.size ? hex_digit(at[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(at[i + 2]) : -1;
        at[to++] = (uint8_t)(low >= 0 ? high << 4 | low : at[i]);
        i += low >= 0 ? 2 : 0;
    }
    return slice_of(at, to);
}

static bool refs_resolve(struct walk *w)
{
    struct way *at = VEC_AT(&w->ways, struct way);
    for (size_t i = 0; i < w->ways.count; i++) {
        if (at[i].ref.size > 0)
            at[i].to = (struct location *)map_get(w->by_pointer, ref_pointer(w, at[i].ref));
        if (!at[i].to) {
            say_where(w, slice_of(at[i].from->pointer, at[i].from->size));
            strbuf_printf(w->why, "no schema stands where $ref %.*s leads", SLICE_FMT(at[i].ref));
            return false;
        }
        at[i].to->ways++;
    }
    return true;
}

/* Takes out what nothing leads to, until nothing is left or only circles are. */
static bool no_circles(struct walk *w)
{
    struct location **all = VEC_AT(&w->locations, struct location *);
    const struct way *ways = VEC_AT(&w->ways, struct way);
    for (bool some = true; some;) {
        some = false;
        for (size_t i = 0; i < w->ways.count; i++) {
            struct location *from = ways[i].from;
            if (from->ways == 0 && !from->done) {
                some = from->done = true;
                for (size_t k = 0; k < w->ways.count; k++)
                    ways[k].to->ways -= ways[k].from == from;
            }
        }
    }
    for (size_t i = 0; i < w->locations.count; i++) {
        if (all[i]->ways == 0)
            continue;
        say_where(w, slice_of(all[i]->pointer, all[i]->size));
        strbuf_put_text(w->why, "by $ref it leads back to itself, without an end");
        return false;
    }
    return true;
}

/* ---- all ---- */

static bool text_fits(struct slice text, struct strbuf *why)
{
    static const char nul[] = "\\u0000";
    if (text.size > SCHEMA_MAX_BYTES)
        strbuf_printf(why, "a schema has at most %d bytes, not %zu", SCHEMA_MAX_BYTES, text.size);
    else if (!json_valid(text))
        strbuf_put_text(why, "it is not JSON");
    else if (json_type_of(text) != JSON_OBJECT)
        strbuf_put_text(why, "a schema is a JSON object");
    else if (memmem(text.data, text.size, nul, sizeof nul - 1))
        strbuf_put_text(why, "U+0000 is not possible in a schema");
    else
        return true;
    return false;
}

bool vocabulary_prepare(struct slice text, struct strbuf *out, vocabulary_pattern *pattern,
                        void *arg, struct strbuf *why)
{
    if (!text_fits(text, why))
        return false;
    struct walk w = {
        .out = out, .why = why, .by_pointer = map_create(1), .pattern = pattern, .arg = arg};
    bool fine = walk_schema(&w, text, NULL) && refs_resolve(&w) && no_circles(&w);
    for (size_t i = 0; i < w.locations.count; i++) {
        struct location *l = VEC_AT(&w.locations, struct location *)[i];
        mem_free(l->pointer);
        mem_free(l);
    }
    map_destroy(&w.by_pointer);
    vec_free(&w.locations);
    vec_free(&w.ways);
    strbuf_free(&w.pointer);
    strbuf_free(&w.name);
    return fine;
}
