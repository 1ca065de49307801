/* SHELL. libstoa-room-test: the world as authors of rooms in C see it, client/stoa_room_test.h.
 * Each function is one of the world's, with texts for slices and with memory that its caller need
 * not free. */
#include <stdio.h>

#include "common/json.h"
#include "common/mem.h"
#include "shard/room_test/files.h"
#include "shard/vec.h"
#include "stoa_room_test.h"

struct stoa_test {
    struct room_files rooms;
    struct log log;
    struct strbuf lines, printed; /* said since the last time; given out */
    struct strbuf why;
    struct world_answer answer;
    stoa_test_answer shown;
    struct vec connections; /* stoa_test_connection * */
};

struct stoa_test_connection {
    stoa_test *test;
    struct world_connection *connection;
    struct strbuf id, session, tags, message, reason;
};

static struct slice slice_or_none(const char *text)
{
    return text ? slice_text(text) : (struct slice){0};
}

/* ---- the shard ---- */

static void line_put(void *arg, struct slice line)
{
    stoa_test *t = arg;
    strbuf_put_slice(&t->lines, line);
    strbuf_put_byte(&t->lines, '\n');
}

/* Of what the shard says only the rooms' own matters to their author. */
static void line_keep(void *arg, const char *line, size_t size)
{
    stoa_test *t = arg;
    if (memmem(line, size, " room.", 6))
        strbuf_put(&t->lines, line, size);
}

stoa_test *stoa_test_create(void)
{
    stoa_test *t = mem_zalloc(sizeof *t);
    t->log = (struct log){.level = LOG_INFO, .write = line_keep, .ctx = t};
    t->rooms.print = line_put;
    t->rooms.arg = t;
    room_files_begin(&t->rooms, &t->log);
    return t;
}

static void connection_free(stoa_test_connection *c)
{
    struct strbuf *texts[] = {&c->id, &c->session, &c->tags, &c->message, &c->reason};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        strbuf_free(texts[i]);
    mem_free(c);
}

void stoa_test_destroy(stoa_test *t)
{
    if (!t)
        return;
    room_files_end(&t->rooms);
    for (size_t i = 0; i < t->connections.count; i++)
        connection_free(VEC_AT(&t->connections, stoa_test_connection *)[i]);
    vec_free(&t->connections);
    world_answer_free(&t->answer);
    strbuf_free(&t->lines);
    strbuf_free(&t->printed);
    strbuf_free(&t->why);
    mem_free(t);
}

static int add(stoa_test *t, const char *path, room_entry *entry, const char *config)
{
    const char *name;
    strbuf_reset(&t->why);
    if (!t->rooms.world)
        strbuf_put_text(&t->why, "this shard did not start again");
    else if (room_files_add(&t->rooms, path, entry, slice_or_none(config), &name, &t->why) ==
             ERR_OK)
        return 0;
    return -1;
}

int stoa_test_load(stoa_test *t, const char *path, const char *config)
{
    STOA_ASSERT(path);
    return add(t, path, NULL, config);
}

int stoa_test_plugin(stoa_test *t, const stoa_room_vtable *(*entry)(uint32_t), const char *config)
{
    STOA_ASSERT(entry);
    return add(t, NULL, entry, config);
}

const char *stoa_test_error(stoa_test *t)
{
    return strbuf_cstr(&t->why);
}

const char *stoa_test_printed(stoa_test *t)
{
    strbuf_reset(&t->printed);
    strbuf_put_slice(&t->printed, strbuf_slice(&t->lines));
    strbuf_reset(&t->lines);
    return strbuf_cstr(&t->printed);
}

int stoa_test_restart(stoa_test *t, int gateways)
{
    strbuf_reset(&t->why);
    if (!t->rooms.world)
        strbuf_put_text(&t->why, "this shard did not start again");
    else if (room_files_restart(&t->rooms, gateways != 0, &t->why) == ERR_OK)
        return 0;
    return -1;
}

void stoa_test_fail_commits(stoa_test *t, unsigned n)
{
    if (t->rooms.world)
        world_fill(t->rooms.world, n);
}

/* ---- questions ---- */

/* False: there is nobody to answer, and the answer says so. */
static bool question_begin(stoa_test *t)
{
    world_answer_free(&t->answer);
    t->answer = (struct world_answer){0};
    if (t->rooms.world)
        return true;
    t->answer.status = 503;
    strbuf_put_text(&t->answer.tag, "Unavailable");
    strbuf_put_text(&t->answer.text, "this shard did not start again");
    return false;
}

const stoa_test_answer *stoa_test_last(stoa_test *t)
{
    t->shown = (stoa_test_answer){.status = t->answer.status,
                                  .tag = strbuf_cstr(&t->answer.tag),
                                  .message = strbuf_cstr(&t->answer.text),
                                  .json = strbuf_cstr(&t->answer.json)};
    return &t->shown;
}

static const stoa_test_answer *ask(stoa_test *t, const char *key, enum call_verb verb,
                                   const char *name, const char *input)
{
    if (question_begin(t))
        world_call(t->rooms.world, slice_text(key), verb, slice_or_none(name), slice_or_none(input),
                   &t->answer);
    return stoa_test_last(t);
}

const stoa_test_answer *stoa_test_send(stoa_test *t, const char *key, const char *event)
{
    return ask(t, key, VERB_SEND, NULL, event);
}

const stoa_test_answer *stoa_test_broadcast(stoa_test *t, const char *key, const char *message)
{
    return ask(t, key, VERB_BROADCAST, NULL, message);
}

const stoa_test_answer *stoa_test_call(stoa_test *t, const char *key, const char *method,
                                       const char *input)
{
    STOA_ASSERT(method);
    return ask(t, key, VERB_METHOD, method, input);
}

const stoa_test_answer *stoa_test_state(stoa_test *t, const char *key)
{
    return ask(t, key, VERB_STATE, NULL, NULL);
}

const stoa_test_answer *stoa_test_connections(stoa_test *t, const char *key, const char *tag)
{
    return ask(t, key, VERB_CONNECTIONS, tag, NULL);
}

const stoa_test_answer *stoa_test_log(stoa_test *t, const char *key)
{
    if (question_begin(t))
        world_log(t->rooms.world, slice_text(key), &t->answer);
    return stoa_test_last(t);
}

const stoa_test_answer *stoa_test_fire_alarm(stoa_test *t, const char *key)
{
    return ask(t, key, VERB_ALARM, NULL, NULL);
}

const stoa_test_answer *stoa_test_purge(stoa_test *t, const char *key)
{
    if (question_begin(t))
        world_purge(t->rooms.world, slice_text(key), &t->answer);
    return stoa_test_last(t);
}

/* ---- time ---- */

int64_t stoa_test_now(stoa_test *t)
{
    return t->rooms.world ? world_now_ms(t->rooms.world) : 0;
}

void stoa_test_tick(stoa_test *t, int64_t ms)
{
    if (t->rooms.world && ms > 0)
        world_wait(t->rooms.world, ms);
}

int64_t stoa_test_next_alarm(stoa_test *t, const char *key)
{
    int64_t due;
    return t->rooms.world && world_alarm(t->rooms.world, slice_text(key), &due) ? due : -1;
}

/* ---- connections ---- */

/* The request with all that identify may see. False: *why names what is wrong. */
static bool request_put(struct strbuf *out, struct slice wish, struct strbuf *why)
{
    static const struct {
        const char *name, *otherwise;
    } members[] = {{"query", "{}"},
                   {"claims", "null"},
                   {"headers", "{}"},
                   {"ip", "\"127.0.0.1\""},
                   {"client_state", "null"}};
    size_t n = sizeof members / sizeof *members;
    if (!json_valid(wish) || json_type_of(wish) != JSON_OBJECT) {
        strbuf_put_text(why, "a request is a JSON object");
        return false;
    }
    for (struct json_iter it = json_members(wish); json_next(&it);) {
        size_t i = 0;
        while (i < n && !slice_is(it.name, members[i].name))
            i++;
        if (i < n)
            continue;
        strbuf_printf(why, "%.*s: not something that identify sees", SLICE_FMT(it.name));
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct json_value v = json_get(wish, members[i].name);
        strbuf_printf(out, "%s\"%s\":", i == 0 ? "{" : ",", members[i].name);
        strbuf_put_slice(out, v.type == JSON_NONE ? slice_text(members[i].otherwise) : v.raw);
    }
    strbuf_put_byte(out, '}');
    return true;
}

stoa_test_connection *stoa_test_connect(stoa_test *t, const char *key, const char *request)
{
    struct strbuf whole = {0};
    struct world_connection *joined = NULL;
    if (!question_begin(t))
        return NULL;
    if (request_put(&whole, slice_text(request ? request : "{}"), &t->answer.text)) {
        joined = world_join(t->rooms.world, slice_text(key), strbuf_slice(&whole), &t->answer);
    } else {
        t->answer.status = 400;
        strbuf_put_text(&t->answer.tag, "BadRequest");
    }
    strbuf_free(&whole);
    if (!joined)
        return NULL;
    stoa_test_connection *c = mem_zalloc(sizeof *c);
    *c = (stoa_test_connection){.test = t, .connection = joined};
    *VEC_PUSH(&t->connections, stoa_test_connection *) = c;
    return c;
}

static const char *text_kept(struct strbuf *kept, struct slice text)
{
    strbuf_reset(kept);
    strbuf_put_slice(kept, text);
    return strbuf_cstr(kept);
}

const char *stoa_test_id(stoa_test_connection *c)
{
    return text_kept(&c->id,
                     c->test->rooms.world ? world_connection_id(c->connection) : (struct slice){0});
}

const char *stoa_test_session(stoa_test_connection *c)
{
    return text_kept(&c->session, c->test->rooms.world ? world_connection_session(c->connection)
                                                       : (struct slice){0});
}

const char *stoa_test_tags(stoa_test_connection *c)
{
    return text_kept(&c->tags, c->test->rooms.world ? world_connection_tags(c->connection)
                                                    : slice_text("[]"));
}

static int receive(stoa_test_connection *c, struct slice frame, bool text)
{
    struct world *w = c->test->rooms.world;
    return w && world_receive(w, c->connection, frame, text) ? 0 : -1;
}

int stoa_test_receive(stoa_test_connection *c, const char *frame)
{
    return receive(c, slice_text(frame), true);
}

int stoa_test_receive_binary(stoa_test_connection *c, const void *frame, size_t size)
{
    return receive(c, slice_of(frame, size), false);
}

const char *stoa_test_received(stoa_test_connection *c)
{
    struct strbuf message;
    if (!c->test->rooms.world || !world_connection_take(c->connection, &message))
        return NULL;
    strbuf_free(&c->message);
    c->message = message;
    return strbuf_cstr(&c->message);
}

void stoa_test_close(stoa_test_connection *c, unsigned code, const char *reason)
{
    struct slice text = slice_or_none(reason);
    STOA_ASSERT(code >= 1000 && code <= 4999 && text.size <= 123);
    if (c->test->rooms.world)
        world_leave(c->test->rooms.world, c->connection, code, text);
}

int stoa_test_is_open(stoa_test_connection *c, unsigned *code, const char **reason)
{
    unsigned why = 1006;
    struct slice text = {0};
    if (c->test->rooms.world && world_connection_open(c->connection, &why, &text))
        return 1;
    if (code)
        *code = why;
    if (reason)
        *reason = text_kept(&c->reason, text);
    return 0;
}
