/* The context of lua_world.h. */
#include "lua_world.h"

#include "common/mem.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- what handlers ask for ---- */

static bool refused(struct context *w, struct fault *fault)
{
    if (!w->refuse)
        return false;
    fault_set(fault, w->refuse, "refused by the test");
    w->refuse = NULL;
    return true;
}

static void line(struct context *w, const char *word, struct slice a, struct slice b)
{
    strbuf_put_text(&w->done, word);
    strbuf_put_byte(&w->done, ' ');
    strbuf_put_slice(&w->done, a);
    if (b.size > 0) {
        strbuf_put_byte(&w->done, ' ');
        strbuf_put_slice(&w->done, b);
    }
    strbuf_put_byte(&w->done, '\n');
}

static const struct slice none;

struct slice context_type(const struct context *w)
{
    (void)w;
    return slice_text("test");
}
struct slice context_id(const struct context *w)
{
    return slice_text(w->id);
}
struct slice context_key(const struct context *w)
{
    return slice_text(w->key);
}
struct connection *context_connection(const struct context *w)
{
    return w->current;
}
const char *context_system_failure(const struct context *w)
{
    (void)w;
    return NULL;
}
int64_t context_now_ms(const struct context *w)
{
    return w->now_ms;
}
uint64_t context_random(struct context *w)
{
    w->random = w->random * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return w->random ^ w->random >> 29;
}
void context_print(struct context *w, struct slice text)
{
    strbuf_put_slice(&w->log, text);
    strbuf_put_byte(&w->log, '\n');
}
bool context_recall(struct context *w, struct slice *state)
{
    *state = strbuf_slice(&w->state);
    return w->has_state;
}
unsigned context_state_version(const struct context *w)
{
    return w->state_version;
}
bool context_save(struct context *w, struct slice state, struct fault *fault)
{
    if (refused(w, fault))
        return false;
    line(w, "save", state, none);
    strbuf_reset(&w->state);
    strbuf_put_slice(&w->state, state);
    w->has_state = true;
    w->state_version = w->handler->traits.state_version;
    return true;
}
void context_purge(struct context *w)
{
    line(w, "purge", none, none);
    w->has_state = false;
}

struct connection *context_next(struct context *w, struct connection *after)
{
    size_t i = after ? (size_t)(after - w->connections) + 1 : 0;
    while (i < w->n_connections && !w->connections[i].open)
        i++;
    return i < w->n_connections ? &w->connections[i] : NULL;
}
size_t context_count(const struct context *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_connections; i++)
        n += w->connections[i].open;
    return n;
}
struct connection *context_by_id(struct context *w, struct slice id)
{
    for (struct connection *c = NULL; (c = context_next(w, c));) {
        if (slice_is(id, c->id))
            return c;
    }
    return NULL;
}
struct slice connection_session(const struct connection *c)
{
    return slice_text(c->session);
}
struct slice connection_id(const struct connection *c)
{
    return slice_text(c->id);
}
size_t connection_tags(const struct connection *c)
{
    return c->tag[0] != '\0';
}
struct slice connection_tag(const struct connection *c, size_t i)
{
    ck_assert_uint_eq(i, 0);
    return slice_text(c->tag);
}
struct slice connection_state(const struct connection *c)
{
    return strbuf_slice(&c->state);
}
struct slice connection_meta(const struct connection *c)
{
    return strbuf_slice(&c->meta);
}
bool connection_is_open(const struct connection *c)
{
    return c->open;
}
bool connection_has_tag(const struct connection *c, struct slice tag)
{
    return slice_is(tag, c->tag);
}
bool context_send(struct context *w, struct connection *c, struct slice message,
                  struct fault *fault)
{
    if (refused(w, fault))
        return false;
    line(w, "send", slice_text(c->session), message);
    return true;
}
bool context_set_state(struct context *w, struct connection *c, struct slice state,
                       struct fault *fault)
{
    if (refused(w, fault))
        return false;
    if (state.size > 200) {
        fault_set(fault, "AttachmentTooLargeError", "%zu bytes", state.size);
        return false;
    }
    line(w, "set_state", slice_text(c->session), state);
    strbuf_reset(&c->state);
    strbuf_put_slice(&c->state, state);
    return true;
}
bool context_close(struct context *w, struct connection *c, unsigned code, struct slice reason,
                   struct fault *fault)
{
    if (refused(w, fault))
        return false;
    char text[64];
    snprintf(text, sizeof text, "%s %u", c->session, code);
    line(w, "close", slice_text(text), reason);
    c->open = false;
    return true;
}

static void names_put(struct strbuf *out, const char *word, const struct slice *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        strbuf_put_text(out, i == 0 ? word : ",");
        strbuf_put_slice(out, names[i]);
    }
}
static void many(struct context *w, const char *word, struct slice message,
                 const struct recipients *who, struct slice conflate)
{
    struct strbuf text = {0};
    names_put(&text, " tags=", who->tags, who->n_tags);
    names_put(&text, " to=", who->to, who->n_to);
    names_put(&text, " except=", who->except, who->n_except);
    if (conflate.size > 0)
        names_put(&text, " conflate=", &conflate, 1);
    struct slice rest = strbuf_slice(&text);
    line(w, word, message, rest.size ? slice_of(rest.data + 1, rest.size - 1) : none);
    strbuf_free(&text);
}
bool context_broadcast(struct context *w, struct slice message, const struct recipients *who,
                       struct fault *fault)
{
    if (refused(w, fault))
        return false;
    many(w, "broadcast", message, who, none);
    return true;
}
bool context_publish(struct context *w, struct slice message, const struct publish_wish *wish,
                     struct fault *fault)
{
    if (refused(w, fault))
        return false;
    many(w, wish->ephemeral ? "ephemeral" : "publish", message, &wish->who, wish->conflate);
    return true;
}
bool context_log(struct context *w, struct slice after, unsigned limit, struct strbuf *out,
                 struct fault *fault)
{
    if (refused(w, fault))
        return false;
    strbuf_printf(out, "[{\"id\":\"e-1\",\"ts\":5,\"data\":{\"after\":\"%.*s\",\"limit\":%u}}]",
                  SLICE_FMT(after), limit);
    return true;
}
bool context_schedule_at(struct context *w, int64_t unix_ms, struct fault *fault)
{
    if (refused(w, fault))
        return false;
    w->alarm_ms = unix_ms;
    strbuf_printf(&w->done, "alarm %lld\n", (long long)unix_ms);
    return true;
}
void context_cancel(struct context *w)
{
    w->alarm_ms = 0;
    line(w, "cancel", none, none);
}
bool context_next_alarm(const struct context *w, int64_t *unix_ms)
{
    *unix_ms = w->alarm_ms;
    return w->alarm_ms != 0;
}
bool context_sleep(struct context *w, int64_t ms, struct fault *fault)
{
    if (refused(w, fault))
        return false;
    strbuf_printf(&w->done, "sleep %lld\n", (long long)ms);
    return true;
}
bool context_sibling(struct context *w, enum sibling_verb verb, struct slice type, struct slice id,
                     struct slice method, struct slice input, struct fault *fault)
{
    static const char *const verbs[] = {"send", "state", "broadcast", "call"};
    if (refused(w, fault))
        return false;
    strbuf_printf(&w->done, "sibling %s %.*s:%.*s %.*s %.*s\n", verbs[verb], SLICE_FMT(type),
                  SLICE_FMT(id), SLICE_FMT(method), SLICE_FMT(input));
    return true;
}
bool context_item(struct context *w, struct slice item, struct fault *fault)
{
    if (refused(w, fault))
        return false;
    line(w, "item", item, none);
    return true;
}

/* ---- for tests ---- */

static int64_t load_now(void *arg)
{
    (void)arg;
    return 1234;
}

static int create(struct handler **h, const char *text, uint64_t instructions, size_t memory_bytes,
                  struct strbuf *why)
{
    struct lua_options options = {.instructions = instructions,
                                  .memory_bytes = memory_bytes,
                                  .now_ms = load_now,
                                  .env = slice_text("{\"color\":\"red\"}")};
    return lua_handler_create(h, "room.lua", slice_text(text), &options, why);
}

struct handler *world_load(const char *text, uint64_t instructions, size_t memory_bytes)
{
    struct handler *h;
    struct strbuf why = {0};
    int code = create(&h, text, instructions, memory_bytes, &why);
    if (code != ERR_OK)
        ck_abort_msg("%s", strbuf_cstr(&why));
    strbuf_free(&why);
    return h;
}

const char *world_refusal(const char *text)
{
    static char reason[512];
    struct handler *h;
    struct strbuf why = {0};
    int code = create(&h, text, 0, 0, &why);
    snprintf(reason, sizeof reason, "%s", code == ERR_OK ? "loaded" : strbuf_cstr(&why));
    strbuf_free(&why);
    if (code == ERR_OK)
        h->vtable->destroy(h);
    return reason;
}

struct context *world_create(struct handler *h, const char *id)
{
    struct context *w = mem_zalloc(sizeof *w);
    w->handler = h;
    snprintf(w->id, sizeof w->id, "%s", id);
    snprintf(w->key, sizeof w->key, "test:%s", id);
    w->now_ms = 1000000;
    w->mem = h->vtable->load(h, w);
    return w;
}

void world_destroy(struct context *w)
{
    if (w->run)
        w->handler->vtable->abandon(w->handler, &w->run);
    w->handler->vtable->unload(w->handler, w->mem);
    for (size_t i = 0; i < w->n_connections; i++) {
        strbuf_free(&w->connections[i].state);
        strbuf_free(&w->connections[i].meta);
    }
    strbuf_free(&w->state);
    strbuf_free(&w->done);
    strbuf_free(&w->log);
    strbuf_free(&w->value);
    strbuf_free(&w->result);
    fault_free(&w->fault);
    mem_free(w);
}

struct connection *world_join(struct context *w, const char *session, const char *id,
                              const char *tag, const char *state)
{
    ck_assert_uint_lt(w->n_connections, WORLD_CONNECTIONS_MAX);
    struct connection *c = &w->connections[w->n_connections++];
    snprintf(c->session, sizeof c->session, "%s", session);
    snprintf(c->id, sizeof c->id, "%s", id);
    snprintf(c->tag, sizeof c->tag, "%s", tag);
    strbuf_put_text(&c->state, state);
    c->open = true;
    return c;
}

enum run_end world_run(struct context *w, const struct invocation *what)
{
    strbuf_reset(&w->result);
    ck_assert_ptr_null(w->run);
    return w->handler->vtable->run(w->handler, w, w->mem, what, &w->run, &w->result, &w->fault);
}

enum run_end world_event(struct context *w, struct connection *c, const char *event)
{
    w->current = c;
    struct invocation what = {.phase = PHASE_EVENT, .input = slice_text(event)};
    return world_run(w, &what);
}

enum run_end world_call(struct context *w, const char *method, const char *input)
{
    struct invocation what = {
        .phase = PHASE_CALL, .input = slice_text(input), .method = slice_text(method)};
    return world_run(w, &what);
}

enum run_end world_wake(struct context *w, const char *value, const struct fault *fault)
{
    struct wake wake = {.fault = fault, .value = slice_text(value)};
    ck_assert_ptr_nonnull(w->run);
    return w->handler->vtable->resume(w->handler, w, w->mem, &w->run, &wake, &w->result, &w->fault);
}

static const char *fault_line(struct context *w, const char *prefix)
{
    static char text[400];
    snprintf(text, sizeof text, "%s%s: %.*s", prefix, w->fault.tag, SLICE_FMT(w->fault.message));
    text[strcspn(text, "\n")] = '\0';
    return text;
}

const char *world_answer(struct context *w, const char *method, const char *input)
{
    switch (world_call(w, method, input)) {
    case RUN_DONE:
        return strbuf_cstr(&w->result);
    case RUN_ABSENT:
        return "absent";
    case RUN_FAILED:
        return fault_line(w, "");
    case RUN_KILLED:
        return fault_line(w, "killed ");
    case RUN_YIELDED:
        return "yielded";
    default:
        return "?";
    }
}

const char *world_done(struct context *w)
{
    strbuf_reset(&w->value);
    strbuf_put_slice(&w->value, strbuf_slice(&w->done));
    strbuf_reset(&w->done);
    return strbuf_cstr(&w->value);
}

const char *world_log(struct context *w)
{
    strbuf_reset(&w->value);
    strbuf_put_slice(&w->value, strbuf_slice(&w->log));
    strbuf_reset(&w->log);
    return strbuf_cstr(&w->value);
}

struct handler *world_body(const char *body)
{
    struct strbuf text = {0};
    strbuf_printf(&text,
                  "#!room name=test api=1\nlocal room = require \"room\"\n"
                  "return { rpc = { f = function(ctx, input) %s\nend } }\n",
                  body);
    struct handler *h = world_load(strbuf_cstr(&text), 5000000, 32 << 20);
    strbuf_free(&text);
    return h;
}

const char *world_eval(const char *body)
{
    static char answer[2048];
    struct handler *h = world_body(body);
    struct context *w = world_create(h, "a");
    snprintf(answer, sizeof answer, "%s", world_answer(w, "f", ""));
    world_destroy(w);
    h->vtable->destroy(h);
    return answer;
}
