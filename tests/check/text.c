/* SHELL. Entries as JSON lines, both ways. The reader is its own: flat objects of known members, no
 * tree, one look at each byte; what it does not know it refuses. */
#include <stdio.h>

#include "common/json.h"
#include "internal.h"

enum member {
    M_OP,
    M_T,
    M_WHO,
    M_KEY,
    M_MSG,
    M_N,
    M_PSEQ,
    M_CONFLATE,
    M_EPHEMERAL,
    M_AIM,
    M_BUT,
    M_RESULT,
    M_ID,
    M_DUP,
    M_AFTER,
    M_REPLAY,
    M_CONFLATED,
    M_STATUS,
    M_HEAD,
    M_FROM,
    M_TO,
    M_REASON,
    M_SLOT,
    M_EPOCH,
    M_DUE,
    M_AT,
    M_WHAT,
    MEMBERS
};
static const char *const members[MEMBERS] = {
    "op",   "t",    "who",    "key",    "msg",  "n",     "pseq",   "conflate",  "ephemeral",
    "aim",  "but",  "result", "id",     "dup",  "after", "replay", "conflated", "status",
    "head", "from", "to",     "reason", "slot", "epoch", "due",    "at",        "what"};
#define B(m) (1u << (m))
#define WHERE (B(M_WHO) | B(M_KEY))

static const struct {
    const char *name;
    uint32_t needs; /* beside op and t */
    uint32_t may;
} ops[H_OPS] = {
    [H_PUBLISH] = {"publish", WHERE | B(M_MSG),
                   B(M_N) | B(M_PSEQ) | B(M_CONFLATE) | B(M_EPHEMERAL) | B(M_AIM) | B(M_BUT)},
    [H_ANSWER] = {"answer", WHERE | B(M_MSG) | B(M_RESULT), B(M_ID) | B(M_DUP)},
    [H_SUBSCRIBE] = {"subscribe", WHERE, B(M_AFTER) | B(M_REPLAY) | B(M_CONFLATED) | B(M_AIM)},
    [H_VERDICT] = {"verdict", WHERE | B(M_STATUS), B(M_HEAD) | B(M_FROM) | B(M_TO) | B(M_REASON)},
    [H_DELIVER] = {"deliver", WHERE, B(M_ID) | B(M_MSG)},
    [H_CLOSE] = {"close", B(M_WHO), B(M_KEY)},
    [H_TRIM] = {"trim", B(M_KEY) | B(M_ID) | B(M_REASON), 0},
    [H_CRASH] = {"crash", B(M_WHO), 0},
    [H_RESTART] = {"restart", B(M_WHO), 0},
    [H_OWN] = {"own", B(M_WHO) | B(M_SLOT) | B(M_EPOCH), 0},
    [H_DROP] = {"drop", B(M_WHO) | B(M_SLOT) | B(M_EPOCH), 0},
    [H_CALM] = {"calm", 0, 0},
    [H_DEADLINE] = {"deadline", 0, 0},
    [H_LOG] = {"log", B(M_KEY) | B(M_ID) | B(M_MSG), 0},
    [H_HEAD] = {"head", B(M_KEY) | B(M_FROM) | B(M_ID), 0},
    [H_ARM] = {"arm", B(M_KEY) | B(M_MSG) | B(M_DUE), 0},
    [H_FIRE] = {"fire", B(M_KEY) | B(M_MSG), 0},
    [H_CALL] = {"call", WHERE | B(M_MSG), 0},
    [H_RESULT] = {"result", WHERE | B(M_MSG) | B(M_RESULT), B(M_AT)},
    [H_JOIN] = {"join", WHERE, 0},
    [H_JOINED] = {"joined", WHERE, 0},
    [H_SAY] = {"say", WHERE | B(M_MSG), 0},
    [H_HEAR] = {"hear", WHERE | B(M_AT), 0},
    [H_LEAVE] = {"leave", WHERE, 0},
    [H_STEP] = {"step", B(M_KEY) | B(M_AT) | B(M_WHAT), B(M_WHO) | B(M_MSG) | B(M_DUE)},
    [H_STEPS] = {"steps", B(M_KEY) | B(M_AT), B(M_DUE)}};
static const char *const results[] = {NULL, "ack", "nack", "unknown", "timeout"};
static const char *const states[] = {"live", "resumed", "missed"};
static const char *const steps[] = {"connect", "close", "say", "call", "arm", "alarm"};
#define STEPS (sizeof steps / sizeof *steps)
static const uint32_t step_members[STEPS] = {
    B(M_WHO), B(M_WHO), B(M_WHO) | B(M_MSG), B(M_MSG), B(M_MSG) | B(M_DUE), B(M_DUE)};
static const char *const reasons[] = {NULL, "expired", "evicted", "slow", "purged", "epoch"};

struct token {
    struct slice text; /* of a string: without its quotes */
    uint64_t number;
    enum json_type type;
    bool escaped;
};

static const uint8_t *blanks(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

static const uint8_t *read_string(const uint8_t *p, const uint8_t *end, struct token *t)
{
    const uint8_t *start = ++p;
    t->escaped = false;
    uint8_t high = 0;
    for (; p < end && *p != '"'; p++) {
        if (*p < 0x20)
            return NULL;
        high |= *p;
        if (*p == '\\') {
            t->escaped = true;
            p++;
        }
    }
    if (p >= end)
        return NULL;
    t->type = JSON_STRING;
    t->text = slice_of(start, (size_t)(p - start));
    if ((high & 0x80 || t->escaped) && !json_valid(slice_of(start - 1, t->text.size + 2)))
        return NULL;
    return p + 1;
}

static const uint8_t *read_value(const uint8_t *p, const uint8_t *end, struct token *t)
{
    size_t left = (size_t)(end - p);
    if (left && *p == '"')
        return read_string(p, end, t);
    if (left >= 4 && memcmp(p, "true", 4) == 0) {
        t->type = JSON_TRUE;
        return p + 4;
    }
    if (left >= 5 && memcmp(p, "false", 5) == 0) {
        t->type = JSON_FALSE;
        return p + 5;
    }
    const uint8_t *start = p;
    t->type = JSON_NUMBER;
    t->number = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        uint8_t digit = (uint8_t)(*p - '0');
        if (t->number > (UINT64_MAX - digit) / 10)
            return NULL;
        t->number = t->number * 10 + digit;
    }
    if (p == start || (*start == '0' && p - start > 1))
        return NULL;
    return p;
}

static int choice(struct slice text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] && slice_is(text, list[i]))
            return (int)i;
    return -1;
}

static uint32_t name_of(struct history *h, const struct token *t)
{
    if (!t->escaped)
        return history_name(h, t->text);
    struct strbuf b = {0};
    struct json_value v = {JSON_STRING, slice_of(t->text.data - 1, t->text.size + 2)};
    uint32_t name = json_unescape(v, &b) ? history_name(h, strbuf_slice(&b)) : 0;
    strbuf_free(&b);
    return name;
}

static bool set_text(struct history *h, struct history_entry *e, enum member m,
                     const struct token *t)
{
    int i;
    switch (m) {
    case M_OP:
        for (i = 1; i < H_OPS && !slice_is(t->text, ops[i].name); i++)
            continue;
        e->op = (uint8_t)i;
        return i < H_OPS;
    case M_WHO:
        return t->text.size && (e->who = name_of(h, t));
    case M_KEY:
        return t->text.size && (e->key = name_of(h, t));
    case M_CONFLATE:
        return t->text.size && (e->conflate = name_of(h, t));
    case M_RESULT:
        i = choice(t->text, results, 5);
        e->what = (uint8_t)i;
        return i > 0;
    case M_STATUS:
        i = choice(t->text, states, 3);
        e->what = (uint8_t)(H_LIVE + i);
        return i >= 0;
    case M_WHAT:
        i = choice(t->text, steps, STEPS);
        e->what = (uint8_t)(H_DID_CONNECT + i);
        return i >= 0;
    case M_REASON:
        i = choice(t->text, reasons, 6);
        e->reason = (uint8_t)i;
        return i > 0;
    case M_REPLAY:
        e->what = slice_is(t->text, "all") ? H_ALL : H_NONE;
        return e->what == H_ALL || slice_is(t->text, "none");
    case M_AFTER:
        e->what = H_AFTER;
        return event_id_parse(t->text, &e->id) == ERR_OK;
    case M_ID:
    case M_HEAD:
        e->has_id = true;
        return event_id_parse(t->text, &e->id) == ERR_OK;
    case M_FROM:
        return event_id_parse(t->text, &e->from) == ERR_OK;
    case M_TO:
        return event_id_parse(t->text, &e->to) == ERR_OK;
    default:
        return false;
    }
}

static bool set_number(struct history_entry *e, enum member m, uint64_t number)
{
    switch (m) {
    case M_T:
        e->t = number;
        return true;
    case M_MSG:
        e->msg = number;
        return number != 0;
    case M_N:
        e->n = (uint32_t)number;
        return number >= 1 && number <= 1000000;
    case M_PSEQ:
        e->pseq = number;
        return true;
    case M_AT:
        e->at = number;
        return true;
    case M_AIM:
        e->aim = number;
        return true;
    case M_BUT:
        e->but = number;
        return true;
    case M_SLOT:
        e->slot = (uint32_t)number;
        return number <= UINT32_MAX;
    case M_REPLAY:
        e->what = H_LAST;
        e->number = number;
        return true;
    case M_EPOCH:
    case M_DUE:
        e->number = number;
        return m == M_DUE || number != 0;
    default:
        return false;
    }
}

static bool set_bool(struct history_entry *e, enum member m, bool value)
{
    bool *at = m == M_EPHEMERAL   ? &e->ephemeral
               : m == M_DUP       ? &e->dup
               : m == M_CONFLATED ? &e->conflated
                                  : NULL;
    if (at)
        *at = value;
    return at != NULL;
}

static const char *whole(const struct history_entry *e, uint32_t seen)
{
    uint32_t rest = seen & ~(B(M_OP) | B(M_T));
    if (!(seen & B(M_OP)) || !(seen & B(M_T)))
        return "op and t are needed";
    if ((rest & ops[e->op].needs) != ops[e->op].needs)
        return "a member is missing";
    if (rest & ~(ops[e->op].needs | ops[e->op].may))
        return "a member does not belong to this op";
    uint32_t miss = B(M_FROM) | B(M_TO) | B(M_REASON);
    if (e->op == H_VERDICT && (rest & miss) != (e->what == H_MISSED ? miss : 0))
        return "from, to and reason belong to missed";
    if (e->op == H_SUBSCRIBE && (rest & B(M_AFTER)) && (rest & B(M_REPLAY)))
        return "after and replay exclude each other";
    if (e->op == H_DELIVER && !(rest & (B(M_ID) | B(M_MSG))))
        return "a delivery needs an id or a msg";
    bool placed = e->op == H_DELIVER || e->op == H_LOG || e->op == H_ANSWER;
    if (placed && (rest & B(M_ID)) && e->id.seq == 0)
        return "an event's id has a seq";
    if (e->op == H_ANSWER && e->what != H_ACK && (rest & B(M_ID)))
        return "only an ack has an id";
    if (e->op == H_RESULT && (e->what == H_ACK) != (e->at != 0))
        return "an ack says which step, and nothing else does";
    if ((e->op == H_STEP || e->op == H_HEAR) && e->at == 0)
        return "steps begin with 1";
    if (e->op == H_STEP &&
        (rest & (B(M_WHO) | B(M_MSG) | B(M_DUE))) != step_members[e->what - H_DID_CONNECT])
        return "who, msg and due are as what says";
    return NULL;
}

static int refuse(char why[120], const char *text, struct slice name)
{
    int size = name.size < 32 ? (int)name.size : 32;
    snprintf(why, 120, "%s%s%.*s", text, size ? ": " : "", size, (const char *)name.data);
    return ERR_INVALID;
}

int history_read(struct history *h, struct slice line, char why[120])
{
    struct history_entry e = {0};
    uint32_t seen = 0;
    struct slice none = slice_text("");
    const uint8_t *p = blanks(line.data, line.data + line.size), *end = line.data + line.size;
    if (p == end || *p != '{')
        return refuse(why, "not a JSON object", none);
    do {
        struct token name, value;
        p = blanks(p + 1, end);
        if (p >= end || *p != '"' || !(p = read_string(p, end, &name)))
            return refuse(why, "a member's name is expected", none);
        int m = choice(name.text, members, MEMBERS);
        if (m < 0 || seen & B(m))
            return refuse(why, m < 0 ? "unknown member" : "twice", name.text);
        seen |= B(m);
        p = blanks(p, end);
        if (p >= end || *p != ':' || !(p = read_value(blanks(p + 1, end), end, &value)))
            return refuse(why, "not a string, a number or a bool", name.text);
        bool good = value.type == JSON_STRING ? set_text(h, &e, (enum member)m, &value)
                    : value.type == JSON_NUMBER
                        ? set_number(&e, (enum member)m, value.number)
                        : set_bool(&e, (enum member)m, value.type == JSON_TRUE);
        if (!good)
            return refuse(why, "no such value", name.text);
        p = blanks(p, end);
    } while (p < end && *p == ',');
    if (p >= end || *p != '}' || blanks(p + 1, end) != end)
        return refuse(why, "the object does not end here", none);
    const char *wrong = whole(&e, seen);
    if (wrong)
        return refuse(why, wrong, none);
    history_add(h, &e);
    return ERR_OK;
}

static void put_name(const struct history *h, struct strbuf *out, const char *member, uint32_t name)
{
    if (!name)
        return;
    strbuf_printf(out, ",\"%s\":", member);
    json_quote(out, history_text(h, name));
}

static void put_number(struct strbuf *out, const char *member, uint64_t number)
{
    if (!number)
        return;
    strbuf_printf(out, ",\"%s\":", member);
    strbuf_put_u64(out, number);
}

static void put_id(struct strbuf *out, const char *member, struct position p)
{
    strbuf_printf(out, ",\"%s\":\"%s\"", member, id_text(p).text);
}

static void write_special(const struct history_entry *e, struct strbuf *out)
{
    if (e->op == H_ANSWER || e->op == H_RESULT)
        strbuf_printf(out, ",\"result\":\"%s\"", results[e->what]);
    if (e->op == H_VERDICT)
        strbuf_printf(out, ",\"status\":\"%s\"", states[e->what - H_LIVE]);
    if (e->op == H_SUBSCRIBE && e->what == H_AFTER)
        put_id(out, "after", e->id);
    if (e->op == H_SUBSCRIBE && e->what == H_ALL)
        strbuf_put_text(out, ",\"replay\":\"all\"");
    if (e->op == H_SUBSCRIBE && e->what == H_LAST) {
        strbuf_put_text(out, ",\"replay\":");
        strbuf_put_u64(out, e->number);
    }
    if (e->op == H_OWN || e->op == H_DROP) {
        strbuf_put_text(out, ",\"slot\":");
        strbuf_put_u64(out, e->slot);
        put_number(out, "epoch", e->number);
    }
    if (e->op == H_STEP)
        strbuf_printf(out, ",\"what\":\"%s\"", steps[e->what - H_DID_CONNECT]);
    bool at_end = e->op == H_STEPS && e->number != 0;
    if (e->op == H_ARM || at_end ||
        (e->op == H_STEP && (e->what == H_DID_ARM || e->what == H_DID_ALARM))) {
        strbuf_put_text(out, ",\"due\":");
        strbuf_put_u64(out, e->number);
    }
    if (e->at || e->op == H_STEPS) {
        strbuf_put_text(out, ",\"at\":");
        strbuf_put_u64(out, e->at);
    }
    if ((e->op == H_VERDICT && e->what == H_MISSED) || e->op == H_HEAD)
        put_id(out, "from", e->from);
    if (e->op == H_VERDICT && e->what == H_MISSED)
        put_id(out, "to", e->to);
}

void history_write(const struct history *h, const struct history_entry *e, struct strbuf *out)
{
    strbuf_printf(out, "{\"op\":\"%s\",\"t\":", ops[e->op].name);
    strbuf_put_u64(out, e->t);
    put_name(h, out, "who", e->who);
    put_name(h, out, "key", e->key);
    put_number(out, "msg", e->msg);
    put_number(out, "n", e->n > 1 ? e->n : 0);
    put_number(out, "pseq", e->pseq);
    put_name(h, out, "conflate", e->conflate);
    put_number(out, "aim", e->aim);
    put_number(out, "but", e->but);
    write_special(e, out);
    if (e->op == H_HEAD || e->op == H_TRIM || e->op == H_LOG ||
        (e->has_id && e->op != H_VERDICT && e->op != H_SUBSCRIBE))
        put_id(out, "id", e->id);
    if (e->op == H_VERDICT && e->has_id)
        put_id(out, "head", e->id);
    if (e->reason)
        strbuf_printf(out, ",\"reason\":\"%s\"", reasons[e->reason]);
    if (e->ephemeral)
        strbuf_put_text(out, ",\"ephemeral\":true");
    if (e->dup)
        strbuf_put_text(out, ",\"dup\":true");
    if (e->conflated)
        strbuf_put_text(out, ",\"conflated\":true");
    strbuf_put_text(out, "}\n");
}

void history_dump(const struct history *h, struct strbuf *out)
{
    for (uint32_t i = 0; i < h->entries.count; i++)
        history_write(h, entry_at(h, i), out);
}
