/* The acts of the probe: each is what its tests may ask of it, and asks the host for one thing. */
#include "probe.h"

#include <stdlib.h>

/* ---- inputs and answers ---- */

static stoa_room_bytes member(const struct job *j, const char *name)
{
    return host->json_get(j->input, name);
}

static stoa_room_bytes text_member(const struct job *j, const char *name)
{
    return text_of(j->ctx, j->input, name);
}

/* With a NUL behind it, as json_text gives it. */
static const char *c_text(const struct job *j, const char *name)
{
    stoa_room_bytes text = text_member(j, name);
    return text.p ? text.p : "";
}

static int64_t whole_member(const struct job *j, const char *name)
{
    return whole(member(j, name));
}

/* {"text":"xxx..."} of so many bytes. */
static stoa_room_bytes filled(const struct job *j)
{
    const stoa_room_bytes head = STOA_ROOM_TEXT("{\"text\":\""), tail = STOA_ROOM_TEXT("\"}");
    size_t n = (size_t)whole_member(j, "bytes") - head.n - tail.n;
    struct text t = {.ctx = j->ctx};
    char *fill = host->alloc(j->ctx, n);
    memset(fill, 'x', n);
    put(&t, head);
    put(&t, (stoa_room_bytes){fill, n});
    put(&t, tail);
    return bytes_of(&t);
}

static stoa_room_rc answer(struct job *j, const struct text *t)
{
    j->out = bytes_of(t);
    return STOA_ROOM_OK;
}

static stoa_room_rc answer_number(struct job *j, int64_t n)
{
    struct text t = {.ctx = j->ctx};
    put_number(&t, n);
    return answer(j, &t);
}

/* NONE is nothing, not a failure. */
static stoa_room_rc none_is_null(stoa_room_rc rc)
{
    return rc == STOA_ROOM_NONE ? STOA_ROOM_OK : rc;
}

/* ---- state ---- */

static stoa_room_rc act_recall(struct job *j)
{
    return none_is_null(host->recall(j->ctx, &j->out));
}

static stoa_room_rc act_save(struct job *j)
{
    return host->save(j->ctx, member(j, "state"));
}

static stoa_room_rc act_update(struct job *j)
{
    stoa_room_bytes state;
    struct text t = {.ctx = j->ctx};
    stoa_room_rc rc = host->recall(j->ctx, &state);
    j->out = rc == STOA_ROOM_OK ? STOA_ROOM_TEXT("true") : STOA_ROOM_TEXT("false");
    if (rc != STOA_ROOM_OK)
        return none_is_null(rc);
    stoa_room_bytes n = host->json_get(state, "n");
    if (!n.p)
        return host->fail(j->ctx, STOA_ROOM_E_EXECUTION, "the state has no n");
    put_text(&t, "{\"n\":");
    put_number(&t, whole(n) + whole_member(j, "by"));
    put_text(&t, "}");
    return host->save(j->ctx, bytes_of(&t));
}

static stoa_room_rc act_save_bytes(struct job *j)
{
    return host->save(j->ctx, filled(j));
}

static stoa_room_rc act_purge(struct job *j)
{
    host->purge(j->ctx);
    return STOA_ROOM_OK;
}

static stoa_room_rc act_remember(struct job *j)
{
    stoa_room_bytes text = text_member(j, "text");
    free(j->mem->kept);
    *j->mem = (struct mem){.kept = malloc(text.n + 1), .n = text.n};
    if (!j->mem->kept)
        return host->fail(j->ctx, STOA_ROOM_E_EXECUTION, "out of memory");
    if (text.n > 0)
        memcpy(j->mem->kept, text.p, text.n);
    return STOA_ROOM_OK;
}

static stoa_room_rc act_memory(struct job *j)
{
    if (j->mem->kept)
        j->out = host->json_quote(j->ctx, (stoa_room_bytes){j->mem->kept, j->mem->n});
    return STOA_ROOM_OK;
}

/* ---- connections ---- */

static void put_connection(struct text *t, stoa_room_conn *c)
{
    stoa_room_bytes tag;
    put_text(t, "{\"id\":");
    put_quoted(t, host->conn_id(c));
    put_text(t, ",\"tags\":[");
    for (size_t i = 0; (tag = host->conn_tag(c, i)).p; i++) {
        put_text(t, i > 0 ? "," : "");
        put_quoted(t, tag);
    }
    put_text(t, "],\"state\":");
    put_value(t, host->conn_state(c));
    put_text(t, host->conn_is_open(c) ? ",\"open\":true}" : ",\"open\":false}");
}

static stoa_room_rc answer_connections(struct job *j, stoa_room_bytes tag, stoa_room_bytes prefix)
{
    struct text t = {.ctx = j->ctx};
    put_text(&t, "[");
    for (stoa_room_conn *c = NULL; (c = host->next(j->ctx, tag, c));) {
        stoa_room_bytes id = host->conn_id(c);
        if (prefix.n > 0 && (id.n < prefix.n || memcmp(id.p, prefix.p, prefix.n) != 0))
            continue;
        put_text(&t, t.n > 1 ? "," : "");
        put_connection(&t, c);
    }
    put_text(&t, "]");
    return answer(j, &t);
}

static stoa_room_rc named(struct job *j, stoa_room_conn **c)
{
    stoa_room_bytes id = member(j, "id"), text = text_member(j, "id");
    struct text data = {.ctx = j->ctx};
    *c = id.p ? host->by_id(j->ctx, text) : host->connection(j->ctx);
    if (*c)
        return STOA_ROOM_OK;
    put_text(&data, "{");
    put_member(&data, "id", id);
    put_text(&data, "}");
    return host->fail_with(j->ctx, "NoConnection", 404, "nobody has this id", bytes_of(&data));
}

static stoa_room_rc act_me(struct job *j)
{
    struct text t = {.ctx = j->ctx};
    stoa_room_conn *c = host->connection(j->ctx);
    put_text(&t, "{\"type\":");
    put_quoted(&t, host->name(j->ctx));
    put_text(&t, ",\"id\":");
    put_quoted(&t, host->id(j->ctx));
    put_text(&t, ",\"now\":");
    put_number(&t, host->now_ms(j->ctx));
    put_text(&t, ",\"connection\":");
    if (c)
        put_connection(&t, c);
    else
        put_text(&t, "null");
    put_text(&t, "}");
    return answer(j, &t);
}

static stoa_room_rc act_all(struct job *j)
{
    const stoa_room_bytes none = {0};
    return answer_connections(j, none, none);
}

static stoa_room_rc act_by_tag(struct job *j)
{
    return answer_connections(j, text_member(j, "tag"), (stoa_room_bytes){0});
}

static stoa_room_rc act_by_id(struct job *j)
{
    struct text t = {.ctx = j->ctx};
    stoa_room_conn *c = host->by_id(j->ctx, text_member(j, "id"));
    if (c)
        put_connection(&t, c);
    return answer(j, &t);
}

static stoa_room_rc act_filter(struct job *j)
{
    return answer_connections(j, (stoa_room_bytes){0}, text_member(j, "prefix"));
}

static stoa_room_rc act_count(struct job *j)
{
    return answer_number(j, (int64_t)host->count(j->ctx, text_member(j, "tag")));
}

static stoa_room_rc act_send_to(struct job *j)
{
    stoa_room_conn *c;
    stoa_room_rc rc = named(j, &c);
    return rc ? rc : host->send(j->ctx, c, member(j, "message"));
}

static stoa_room_rc act_set_state(struct job *j)
{
    stoa_room_conn *c;
    stoa_room_rc rc = named(j, &c);
    return rc ? rc : host->set_state(j->ctx, c, member(j, "state"));
}

static stoa_room_rc act_set_bytes(struct job *j)
{
    stoa_room_conn *c;
    stoa_room_rc rc = named(j, &c);
    return rc ? rc : host->set_state(j->ctx, c, filled(j));
}

static stoa_room_rc act_shut(struct job *j)
{
    stoa_room_conn *c;
    stoa_room_bytes code = member(j, "code");
    stoa_room_rc rc = named(j, &c);
    if (rc != STOA_ROOM_OK)
        return rc;
    return host->close(j->ctx, c, code.p ? (unsigned)whole(code) : 1000, text_member(j, "reason"));
}

/* ---- to many ---- */

/* One name or an array of them; NULL: not given. */
static const stoa_room_bytes *names_of(struct job *j, const char *option, size_t *count)
{
    stoa_room_bytes given = member(j, option);
    const stoa_room_bytes *items;
    *count = 0;
    if (!given.p)
        return NULL;
    if (host->json_items(j->ctx, given, &items, count) != STOA_ROOM_OK) {
        items = &given;
        *count = 1;
    }
    stoa_room_bytes *names = host->alloc(j->ctx, (*count + 1) * sizeof *names);
    for (size_t i = 0; i < *count; i++)
        (void)host->json_text(j->ctx, items[i], &names[i]);
    return names;
}

static stoa_room_recipients recipients_of(struct job *j)
{
    stoa_room_recipients who = {0};
    stoa_room_conn *me = host->connection(j->ctx);
    who.tags = names_of(j, "tags", &who.n_tags);
    who.to = names_of(j, "to", &who.n_to);
    who.except = names_of(j, "except", &who.n_except);
    if (is(member(j, "not_me"), "true") && me) {
        stoa_room_bytes *session = host->alloc(j->ctx, sizeof *session);
        *session = host->conn_session(me);
        who.except = session;
        who.n_except = 1;
    }
    return who;
}

static stoa_room_rc act_tell(struct job *j)
{
    stoa_room_recipients who = recipients_of(j);
    return host->broadcast(j->ctx, member(j, "message"), &who);
}

static stoa_room_rc act_tell_bytes(struct job *j)
{
    size_t n = (size_t)whole_member(j, "bytes");
    char *p = host->alloc(j->ctx, n);
    memset(p, 'x', n);
    p[0] = p[n - 1] = '"';
    return host->broadcast(j->ctx, (stoa_room_bytes){p, n}, NULL);
}

static stoa_room_rc act_publish(struct job *j)
{
    stoa_room_publish wish = {.who = recipients_of(j),
                              .conflate = text_member(j, "conflate"),
                              .ephemeral = is(member(j, "ephemeral"), "true")};
    return host->publish(j->ctx, member(j, "message"), &wish);
}

static stoa_room_rc act_events(struct job *j)
{
    return host->log(j->ctx, text_member(j, "after"), (unsigned)whole_member(j, "limit"), &j->out);
}

/* ---- time ---- */

static stoa_room_rc act_wake_in(struct job *j)
{
    return host->schedule_in(j->ctx, whole_member(j, "ms"));
}

static stoa_room_rc act_wake_at(struct job *j)
{
    return host->schedule_at(j->ctx, whole_member(j, "at"));
}

static stoa_room_rc act_unwake(struct job *j)
{
    host->cancel_schedule(j->ctx);
    return STOA_ROOM_OK;
}

static stoa_room_rc act_next_wake(struct job *j)
{
    int64_t at;
    stoa_room_rc rc = host->next_alarm(j->ctx, &at);
    return rc == STOA_ROOM_OK ? answer_number(j, at) : none_is_null(rc);
}

/* ---- what is answered later ---- */

struct later {
    int64_t began_ms; /* a sleep's; 0: another room is asked */
    int event, tried;
    size_t n;
    char act[]; /* its name */
};

static stoa_room_rc answered(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc, stoa_room_bytes value,
                             void *ud)
{
    struct later *later = ud;
    if (!ctx) { /* the room does not go on */
        free(later);
        return rc;
    }
    struct job j = {.ctx = ctx,
                    .mem = mem,
                    .act = {later->act, later->n},
                    .out = value,
                    .event = later->event,
                    .tried = later->tried};
    if (later->began_ms > 0) {
        struct text t = {.ctx = ctx};
        put_text(&t, "{\"slept\":");
        put_number(&t, host->now_ms(ctx) - later->began_ms);
        put_text(&t, "}");
        (void)answer(&j, &t);
    }
    rc = finish(&j, rc);
    free(later);
    return rc;
}

static struct later *later_of(struct job *j, int64_t began_ms)
{
    struct later *later = malloc(sizeof *later + j->act.n);
    if (!later)
        abort();
    *later =
        (struct later){.began_ms = began_ms, .event = j->event, .tried = j->tried, .n = j->act.n};
    memcpy(later->act, j->act.p, j->act.n);
    return later;
}

static stoa_room_rc waits(struct job *j, stoa_room_rc rc, struct later *later)
{
    if (rc != STOA_ROOM_OK)
        free(later);
    j->waits = rc == STOA_ROOM_OK;
    return rc;
}

static stoa_room_rc act_sleep(struct job *j)
{
    struct later *later = later_of(j, host->now_ms(j->ctx));
    return waits(j, host->sleep(j->ctx, whole_member(j, "ms"), answered, later), later);
}

static stoa_room_rc act_room_send(struct job *j)
{
    struct later *later = later_of(j, 0);
    return waits(j,
                 host->room_send(j->ctx, text_member(j, "type"), text_member(j, "id"),
                                 member(j, "event"), answered, later),
                 later);
}

static stoa_room_rc act_room_state(struct job *j)
{
    struct later *later = later_of(j, 0);
    return waits(
        j, host->room_state(j->ctx, text_member(j, "type"), text_member(j, "id"), answered, later),
        later);
}

static stoa_room_rc act_room_tell(struct job *j)
{
    struct later *later = later_of(j, 0);
    return waits(j,
                 host->room_broadcast(j->ctx, text_member(j, "type"), text_member(j, "id"),
                                      member(j, "message"), answered, later),
                 later);
}

static stoa_room_rc act_room_call(struct job *j)
{
    struct later *later = later_of(j, 0);
    return waits(j,
                 host->room_call(j->ctx, text_member(j, "type"), text_member(j, "id"),
                                 text_member(j, "method"), member(j, "input"), answered, later),
                 later);
}

/* ---- values ---- */

static stoa_room_rc act_echo(struct job *j)
{
    j->out = j->input;
    return STOA_ROOM_OK;
}

static stoa_room_rc act_size(struct job *j)
{
    return answer_number(j, (int64_t)text_member(j, "text").n);
}

static int digit(char c)
{
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

static stoa_room_rc act_bytes(struct job *j)
{
    stoa_room_bytes hex = text_member(j, "hex");
    char *p = host->alloc(j->ctx, hex.n / 2 + 1);
    for (size_t i = 0; i < hex.n / 2; i++)
        p[i] = (char)(digit(hex.p[2 * i]) * 16 + digit(hex.p[2 * i + 1]));
    j->out = host->json_quote(j->ctx, (stoa_room_bytes){p, hex.n / 2});
    return STOA_ROOM_OK;
}

static stoa_room_rc act_count_to(struct job *j)
{
    int64_t n = whole_member(j, "n");
    for (int64_t i = 1; i <= n; i++) {
        struct text t = {.ctx = j->ctx};
        put_text(&t, "{\"i\":");
        put_number(&t, i);
        put_text(&t, "}");
        stoa_room_rc rc = host->item(j->ctx, bytes_of(&t));
        if (rc != STOA_ROOM_OK)
            return rc;
    }
    j->out = member(j, "last");
    return STOA_ROOM_OK;
}

static stoa_room_rc act_random(struct job *j)
{
    uint64_t first = host->random(j->ctx), second = host->random(j->ctx);
    j->out = first != second ? STOA_ROOM_TEXT("true") : STOA_ROOM_TEXT("false");
    return STOA_ROOM_OK;
}

static stoa_room_rc act_print(struct job *j)
{
    host->print(j->ctx, text_member(j, "text"));
    return STOA_ROOM_OK;
}

/* ---- failures ---- */

static stoa_room_rc act_fail(struct job *j)
{
    stoa_room_bytes text = text_member(j, "message");
    return host->fail(j->ctx, STOA_ROOM_E_EXECUTION, text.p ? text.p : "as asked");
}

static stoa_room_rc act_fail_with(struct job *j)
{
    return host->fail_with(j->ctx, c_text(j, "code"), (unsigned)whole_member(j, "status"),
                           c_text(j, "message"), member(j, "data"));
}

static stoa_room_rc act_raise(struct job *j)
{
    static const char *const tags[] = {[STOA_ROOM_E_ROOM] = "RoomError",
                                       [STOA_ROOM_E_UPGRADE] = "UpgradeError",
                                       [STOA_ROOM_E_SEND] = "SendError",
                                       [STOA_ROOM_E_BROADCAST] = "BroadcastError",
                                       [STOA_ROOM_E_TOO_LARGE] = "AttachmentTooLargeError",
                                       [STOA_ROOM_E_VALIDATION] = "RoomValidationError",
                                       [STOA_ROOM_E_EXECUTION] = "RoomExecutionError",
                                       [STOA_ROOM_E_NOT_FOUND] = "RoomNotFoundError"};
    stoa_room_rc rc = STOA_ROOM_E_ROOM;
    while (rc < STOA_ROOM_E_NOT_FOUND && !is(text_member(j, "tag"), tags[rc]))
        rc++;
    return host->fail(j->ctx, rc, c_text(j, "message"));
}

/* The last failure as a value. */
static stoa_room_bytes shown(stoa_room_ctx *ctx)
{
    const stoa_room_error *e = host->error(ctx);
    struct text t = {.ctx = ctx};
    put_text(&t, "{\"tag\":");
    put_quoted(&t, (stoa_room_bytes){e->tag, strlen(e->tag)});
    if (e->rc != STOA_ROOM_E_EXECUTION) {
        put_text(&t, ",\"message\":");
        put_quoted(&t, (stoa_room_bytes){e->message, strlen(e->message)});
    }
    if (e->status != 0) {
        put_text(&t, ",\"status\":");
        put_number(&t, e->status);
    }
    put_member(&t, "data", e->data);
    put_text(&t, "}");
    return bytes_of(&t);
}

/* What came of a job whose failure is a result. */
void caught(struct job *j, stoa_room_rc rc)
{
    struct text t = {.ctx = j->ctx};
    if (rc != STOA_ROOM_OK) {
        j->out = shown(j->ctx);
        return;
    }
    put_text(&t, "{\"result\":");
    put_value(&t, j->out);
    put_text(&t, "}");
    j->out = bytes_of(&t);
}

static stoa_room_rc run_within(struct job *j, stoa_room_bytes step, struct job *inner)
{
    stoa_room_bytes name = text_of(j->ctx, step, "act");
    const struct act *act = act_named(name);
    *inner = *j;
    inner->input = host->json_get(step, "with");
    inner->out = (stoa_room_bytes){0};
    return act ? act->run(inner) : host->fail(j->ctx, STOA_ROOM_E_EXECUTION, "no such act");
}

static stoa_room_rc act_try(struct job *j)
{
    struct job inner;
    j->tried = 1;
    stoa_room_rc rc = run_within(j, j->input, &inner);
    j->tried = 0;
    j->waits = inner.waits;
    if (!inner.waits)
        caught(&inner, rc);
    j->out = inner.out;
    return STOA_ROOM_OK;
}

static stoa_room_rc act_steps(struct job *j)
{
    const stoa_room_bytes *steps;
    size_t count;
    struct text t = {.ctx = j->ctx};
    if (host->json_items(j->ctx, j->input, &steps, &count) != STOA_ROOM_OK)
        return host->fail(j->ctx, STOA_ROOM_E_EXECUTION, "steps are an array");
    put_text(&t, "[");
    for (size_t i = 0; i < count; i++) {
        struct job inner;
        stoa_room_rc rc = run_within(j, steps[i], &inner);
        if (rc != STOA_ROOM_OK || is(text_of(j->ctx, steps[i], "act"), "purge"))
            return rc; /* in Lua a purge ends the handler */
        put_text(&t, i > 0 ? "," : "");
        put_value(&t, inner.out);
    }
    put_text(&t, "]");
    return answer(j, &t);
}

static const struct act acts[] = {{"recall", act_recall},
                                  {"save", act_save},
                                  {"update", act_update},
                                  {"save_bytes", act_save_bytes},
                                  {"purge", act_purge},
                                  {"remember", act_remember},
                                  {"memory", act_memory},
                                  {"me", act_me},
                                  {"all", act_all},
                                  {"by_tag", act_by_tag},
                                  {"by_id", act_by_id},
                                  {"filter", act_filter},
                                  {"count", act_count},
                                  {"send_to", act_send_to},
                                  {"set_state", act_set_state},
                                  {"set_bytes", act_set_bytes},
                                  {"shut", act_shut},
                                  {"tell", act_tell},
                                  {"tell_bytes", act_tell_bytes},
                                  {"publish", act_publish},
                                  {"events", act_events},
                                  {"wake_in", act_wake_in},
                                  {"wake_at", act_wake_at},
                                  {"unwake", act_unwake},
                                  {"next_wake", act_next_wake},
                                  {"sleep", act_sleep},
                                  {"room_send", act_room_send},
                                  {"room_state", act_room_state},
                                  {"room_tell", act_room_tell},
                                  {"room_call", act_room_call},
                                  {"echo", act_echo},
                                  {"size", act_size},
                                  {"bytes", act_bytes},
                                  {"count_to", act_count_to},
                                  {"random", act_random},
                                  {"print", act_print},
                                  {"fail", act_fail},
                                  {"fail_with", act_fail_with},
                                  {"raise", act_raise},
                                  {"try", act_try},
                                  {"steps", act_steps}};

const struct act *act_named(stoa_room_bytes name)
{
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        if (is(name, acts[i].name))
            return &acts[i];
    }
    return NULL;
}
