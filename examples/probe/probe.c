/* Does what it is told, so that its tests see what every call of the host does. There is the same
 * room in Lua, probe.lua: probe_test.lua speaks to both and sees no difference.
 *
 * An act (acts.c) is a function of a job. Each is a method; a frame {"act":"save","with":{...}}
 * runs it too, and what it returns comes back to the connection as {"did":"save","result":...}. */
#include "probe.h"

#include <stdlib.h>

const stoa_room_host *host;

/* ---- who is it ---- */

static stoa_room_bytes tags_of(stoa_room_ctx *ctx, stoa_room_bytes names)
{
    struct text t = {.ctx = ctx};
    put_text(&t, "[");
    for (size_t from = 0, to; names.p && from < names.n; from = to + 1) {
        for (to = from; to < names.n && names.p[to] != ',';)
            to++;
        if (to == from)
            continue;
        put_text(&t, t.n > 1 ? "," : "");
        put_quoted(&t, (stoa_room_bytes){names.p + from, to - from});
    }
    put_text(&t, "]");
    return bytes_of(&t);
}

static stoa_room_rc identify(stoa_room_ctx *ctx, stoa_room_bytes request,
                             stoa_room_identity *identity)
{
    stoa_room_bytes q = host->json_get(request, "query");
    stoa_room_bytes refuse = text_of(ctx, q, "refuse");
    struct text meta = {.ctx = ctx};
    if (refuse.p)
        return host->refuse(ctx, (unsigned)whole(refuse), "not you");
    if (host->json_get(q, "broken").p)
        return host->fail(ctx, STOA_ROOM_E_EXECUTION, "identify is broken");
    put_text(&meta, "{");
    put_member(&meta, "ask", host->json_get(q, "ask"));
    put_member(&meta, "claims", host->json_get(request, "claims"));
    put_member(&meta, "origin", host->json_get(host->json_get(request, "headers"), "origin"));
    put_member(&meta, "ip", host->json_get(request, "ip"));
    put_member(&meta, "client_state", host->json_get(request, "client_state"));
    put_text(&meta, "}");
    identity->id = text_of(ctx, q, "id");
    identity->tags = tags_of(ctx, text_of(ctx, q, "tags"));
    identity->state = text_of(ctx, q, "state");
    identity->meta = bytes_of(&meta);
    return STOA_ROOM_OK;
}

/* ---- what is not the room's ---- */

static stoa_room_rc refuse_bad(stoa_room_bytes value, const char *text, const char **why)
{
    if (!host->json_get(value, "bad").p)
        return STOA_ROOM_OK;
    *why = text;
    return STOA_ROOM_E_VALIDATION;
}

static stoa_room_rc decode_state(stoa_room_bytes value, const char **why)
{
    return refuse_bad(value, "the state is bad", why);
}

static stoa_room_rc decode_connection(stoa_room_bytes value, const char **why)
{
    return refuse_bad(value, "the connection's state is bad", why);
}

static stoa_room_rc encode_broadcast(stoa_room_bytes value, const char **why)
{
    return refuse_bad(value, "the message is bad", why);
}

static stoa_room_rc decode_event(stoa_room_bytes value, const char **why)
{
    stoa_room_bytes act = host->json_get(value, "act");
    *why = "an event is {act, with}";
    return act.p && act.p[0] == '"' ? STOA_ROOM_OK : STOA_ROOM_E_VALIDATION;
}

/* ---- handlers ---- */

stoa_room_rc finish(struct job *j, stoa_room_rc rc)
{
    stoa_room_conn *c = host->connection(j->ctx);
    struct text t = {.ctx = j->ctx};
    if (j->tried) {
        caught(j, rc);
    } else if (rc != STOA_ROOM_OK) {
        return rc;
    }
    if (!j->event)
        return j->out.n > 0 ? host->result(j->ctx, j->out) : STOA_ROOM_OK;
    if (!c)
        return STOA_ROOM_OK;
    put_text(&t, "{\"did\":");
    put_quoted(&t, j->act);
    put_text(&t, ",\"result\":");
    put_value(&t, j->out);
    put_text(&t, "}");
    return host->send(j->ctx, c, bytes_of(&t));
}

static stoa_room_rc run(struct job *j, const struct act *act)
{
    stoa_room_rc rc = act->run(j);
    return rc == STOA_ROOM_OK && j->waits ? rc : finish(j, rc);
}

static void *load(stoa_room_ctx *ctx)
{
    (void)ctx;
    return calloc(1, sizeof(struct mem));
}

static void unload(void *mem)
{
    free(((struct mem *)mem)->kept);
    free(mem);
}

static stoa_room_rc on_connect(stoa_room_ctx *ctx, void *mem)
{
    stoa_room_conn *c = host->connection(ctx);
    stoa_room_bytes ask = text_of(ctx, host->conn_meta(c), "ask");
    struct text t = {.ctx = ctx};
    (void)mem;
    if (is(ask, "refuse"))
        return host->refuse(ctx, 403, "not here");
    if (is(ask, "fail"))
        return host->fail(ctx, STOA_ROOM_E_EXECUTION, "as asked");
    if (is(ask, "handled"))
        return host->fail_with(ctx, "Handled", 0, "as asked", (stoa_room_bytes){0});
    put_text(&t, "{\"hello\":");
    put_quoted(&t, host->conn_id(c));
    put_text(&t, ",\"meta\":");
    put_value(&t, host->conn_meta(c));
    put_text(&t, "}");
    return host->send(ctx, c, bytes_of(&t));
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    struct job j = {.ctx = ctx,
                    .mem = mem,
                    .act = text_of(ctx, event, "act"),
                    .input = host->json_get(event, "with"),
                    .event = 1};
    const struct act *act = act_named(j.act);
    if (!act)
        return host->fail_with(ctx, "NoAct", 404, "there is no such act", (stoa_room_bytes){0});
    return run(&j, act);
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    struct job j = {.ctx = ctx, .mem = mem, .act = method, .input = input};
    const struct act *act = act_named(method);
    if (is(method, "router.ping"))
        return host->result(ctx, STOA_ROOM_TEXT("\"pong\""));
    return act ? run(&j, act) : STOA_ROOM_NONE;
}

static void put_flag(struct text *t, const char *name, int flag)
{
    put_text(t, ",\"");
    put_text(t, name);
    put_text(t, flag ? "\":true" : "\":false");
}

static stoa_room_rc on_close(stoa_room_ctx *ctx, void *mem, const stoa_room_close_info *info)
{
    stoa_room_conn *c = host->connection(ctx);
    stoa_room_bytes session = host->conn_session(c);
    const stoa_room_recipients others = {.except = &session, .n_except = 1};
    struct text t = {.ctx = ctx};
    (void)mem;
    if (is(info->reason, "fail"))
        return host->fail_with(ctx, "Handled", 0, "on_close fails", (stoa_room_bytes){0});
    put_text(&t, "{\"left\":");
    put_quoted(&t, host->conn_id(c));
    put_text(&t, ",\"code\":");
    put_number(&t, info->code);
    put_text(&t, ",\"reason\":");
    put_quoted(&t, info->reason);
    put_flag(&t, "clean", info->clean);
    put_flag(&t, "replaced", info->replaced);
    put_flag(&t, "recovered", info->recovered);
    put_text(&t, "}");
    return host->broadcast(ctx, bytes_of(&t), &others);
}

/* Fails as often as the state's `fails` says. */
static stoa_room_rc on_alarm(stoa_room_ctx *ctx, void *mem)
{
    struct text t = {.ctx = ctx}, state = {.ctx = ctx};
    const char *failure = host->system_failure(ctx);
    int64_t next;
    stoa_room_bytes before;
    (void)mem;
    put_text(&t, "{\"alarm\":");
    put_number(&t, host->now_ms(ctx));
    put_text(&t, ",\"failure\":");
    if (failure)
        put_quoted(&t, (stoa_room_bytes){failure, strlen(failure)});
    else
        put_text(&t, "null");
    put_text(&t, ",\"next\":");
    if (host->next_alarm(ctx, &next) == STOA_ROOM_OK)
        put_number(&t, next);
    else
        put_text(&t, "null");
    put_text(&t, "}");
    stoa_room_rc rc = host->broadcast(ctx, bytes_of(&t), NULL);
    if (rc != STOA_ROOM_OK || host->recall(ctx, &before) != STOA_ROOM_OK)
        return rc;
    if (host->json_get(before, "handled").p)
        return host->fail_with(ctx, "Handled", 0, "on_alarm fails", (stoa_room_bytes){0});
    int64_t fails = whole(host->json_get(before, "fails"));
    if (fails <= 0)
        return STOA_ROOM_OK;
    put_text(&state, "{\"fails\":");
    put_number(&state, fails - 1);
    put_text(&state, "}");
    rc = host->save(ctx, bytes_of(&state));
    return rc ? rc : host->fail_with(ctx, "Tired", 0, "the alarm fails", (stoa_room_bytes){0});
}

static stoa_room_rc on_decode_error(stoa_room_ctx *ctx, void *mem, stoa_room_bytes raw,
                                    const stoa_room_error *error)
{
    struct text t = {.ctx = ctx};
    (void)mem;
    if (is(raw, "fail"))
        return host->fail_with(ctx, "Handled", 0, "on_decode_error fails", (stoa_room_bytes){0});
    put_text(&t, "{\"undecoded\":");
    put_quoted(&t, raw);
    put_text(&t, ",\"tag\":");
    put_quoted(&t, (stoa_room_bytes){error->tag, strlen(error->tag)});
    put_text(&t, ",\"message\":");
    put_quoted(&t, (stoa_room_bytes){error->message, strlen(error->message)});
    put_text(&t, "}");
    return host->send(ctx, host->connection(ctx), bytes_of(&t));
}

/* What is tagged "Handled" is. */
static stoa_room_rc on_error(stoa_room_ctx *ctx, void *mem, stoa_room_phase phase,
                             const stoa_room_error *error)
{
    static const char *const phases[] = {
        [STOA_ROOM_ON_CONNECT] = "connect", [STOA_ROOM_ON_EVENT] = "event",
        [STOA_ROOM_ON_CLOSE] = "close",     [STOA_ROOM_ON_ALARM] = "alarm",
        [STOA_ROOM_ON_CALL] = "call",       [STOA_ROOM_ON_DECODE_ERROR] = "decode_error"};
    struct text t = {.ctx = ctx};
    (void)mem;
    if (strcmp(error->tag, "Handled") != 0)
        return error->rc;
    put_text(&t, "{\"handled\":\"");
    put_text(&t, phases[phase]);
    put_text(&t, "\",\"message\":");
    put_quoted(&t, (stoa_room_bytes){error->message, strlen(error->message)});
    put_text(&t, "}");
    return host->broadcast(ctx, bytes_of(&t), NULL);
}

/* ---- the table ---- */

static stoa_room_rc probe_open(const stoa_room_host *table, stoa_room_bytes config,
                               const char **why)
{
    (void)config;
    if (table->size < sizeof *table) {
        *why = "the shard is older than this room";
        return STOA_ROOM_E_ROOM;
    }
    host = table;
    return STOA_ROOM_OK;
}

static const stoa_room_traits traits = {.auto_request = "ping", .auto_response = "pong"};

static const stoa_room_vtable probe = {.abi = STOA_ROOM_ABI,
                                       .size = sizeof probe,
                                       .name = "probe",
                                       .traits = &traits,
                                       .open = probe_open,
                                       .identify = identify,
                                       .load = load,
                                       .unload = unload,
                                       .decode_event = decode_event,
                                       .decode_state = decode_state,
                                       .decode_connection = decode_connection,
                                       .encode_broadcast = encode_broadcast,
                                       .on_connect = on_connect,
                                       .on_event = on_event,
                                       .on_close = on_close,
                                       .on_alarm = on_alarm,
                                       .on_call = on_call,
                                       .on_decode_error = on_decode_error,
                                       .on_error = on_error};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &probe : NULL;
}
