/* CORE. A plug-in's table as a handler. C has no coroutines, so a run that waits is a function and
 * its argument: what comes calls it, in a segment of its own, and what it returns is the handler's
 * result. A reply that will never come is told so with ctx NULL, because only the plug-in knows
 * what its argument owns. */
#include "shard/plugin_internal.h"

#include "common/json.h"
#include "common/utf8.h"

#define AUTO_TEXT_MAX_BYTES 2048

static struct plugin *plugin_of(struct handler *h)
{
    return (struct plugin *)(void *)h;
}

const char *plugin_handler_name(const struct handler *h)
{
    return ((const struct plugin *)(const void *)h)->code.name;
}

/* ---- one call into the plug-in ---- */

static struct stoa_room_ctx enter(struct handler *h, struct context *ctx, enum phase phase)
{
    struct plugin *p = plugin_of(h);
    uint8_t *arena = p->arena;
    p->arena = NULL;
    return (struct stoa_room_ctx){.plugin = p,
                                  .ctx = ctx,
                                  .phase = phase,
                                  .error = {.tag = "", .message = ""},
                                  .arena = arena};
}

static void leave(struct stoa_room_ctx *x)
{
    for (size_t i = 0; i < x->memory.count; i++)
        mem_free(VEC_AT(&x->memory, void *)[i]);
    vec_free(&x->memory);
    if (x->arena)
        x->plugin->arena = x->arena;
    strbuf_free(&x->result);
    fault_free(&x->fault);
}

static void run_drop(struct run **run)
{
    struct run *r = *run;
    if (r->reply)
        (void)r->reply(NULL, NULL, STOA_ROOM_NONE, (stoa_room_bytes){0}, r->ud);
    strbuf_free(&r->result);
    mem_free(r);
    *run = NULL;
}

static struct run *run_of(struct stoa_room_ctx *x)
{
    struct run *run = mem_alloc(sizeof *run);
    *run = (struct run){.phase = x->phase,
                        .reply = x->reply,
                        .ud = x->ud,
                        .streams = x->streams,
                        .items = x->items,
                        .result = x->result};
    x->result = (struct strbuf){0};
    return run;
}

/* What the plug-in's return means. */
static enum run_end ended(struct stoa_room_ctx *x, stoa_room_rc rc, const char *where,
                          struct run **run, struct strbuf *result, struct fault *fault)
{
    enum run_end end = RUN_DONE;
    if (rc == STOA_ROOM_OK && x->waits) {
        *run = run_of(x);
        end = RUN_YIELDED;
    } else if (rc == STOA_ROOM_OK) {
        if (x->phase == PHASE_CALL && x->result.size > 0)
            strbuf_put_slice(result, strbuf_slice(&x->result));
        else if (x->phase == PHASE_CALL && (x->streams || !x->items)) /* items alone are an array */
            strbuf_put_text(result, "null");
    } else {
        fault_of_rc(x, rc, where, fault);
        end = RUN_FAILED;
    }
    if (end == RUN_FAILED && x->waits) { /* it will not: what it asked for is dropped with it */
        struct run *dropped = run_of(x);
        run_drop(&dropped);
    }
    leave(x);
    return end;
}

/* ---- phases ---- */

static enum run_end run_connect(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                                stoa_room_rc *rc)
{
    (void)what;
    if (!x->plugin->code.on_connect)
        return RUN_ABSENT;
    *rc = x->plugin->code.on_connect(x, mem);
    return RUN_DONE;
}

/* Not one of the room's: says why in x->fault. */
static bool event_is_bad(struct stoa_room_ctx *x, struct slice event)
{
    const stoa_room_vtable *code = &x->plugin->code;
    const char *why = NULL;
    if (!json_valid(event))
        (void)fault_rc(x, STOA_ROOM_E_VALIDATION, "the event is not JSON");
    else if (code->decode_event && code->decode_event(bytes_of(event), &why) != STOA_ROOM_OK)
        (void)fault_rc(x, STOA_ROOM_E_VALIDATION, "%s",
                       why ? why : "the event is not one of the room's");
    else
        return false;
    return true;
}

static enum run_end run_event(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                              stoa_room_rc *rc)
{
    if (!x->plugin->code.on_event)
        return RUN_ABSENT;
    if (event_is_bad(x, what->input))
        return RUN_UNDECODED;
    *rc = x->plugin->code.on_event(x, mem, bytes_of(what->input));
    return RUN_DONE;
}

static enum run_end run_close(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                              stoa_room_rc *rc)
{
    const stoa_room_close_info info = {.code = what->code,
                                       .reason = bytes_of(what->reason),
                                       .clean = what->clean,
                                       .replaced = what->replaced,
                                       .recovered = what->recovered};
    if (!x->plugin->code.on_close)
        return RUN_ABSENT;
    *rc = x->plugin->code.on_close(x, mem, &info);
    return RUN_DONE;
}

static enum run_end run_alarm(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                              stoa_room_rc *rc)
{
    (void)what;
    if (!x->plugin->code.on_alarm)
        return RUN_ABSENT;
    *rc = x->plugin->code.on_alarm(x, mem);
    return RUN_DONE;
}

static enum run_end run_call(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                             stoa_room_rc *rc)
{
    if (!x->plugin->code.on_call)
        return RUN_ABSENT;
    if (what->input.size > 0 && !json_valid(what->input)) {
        *rc = fault_rc(x, STOA_ROOM_E_VALIDATION, "the method's input is not JSON");
        return RUN_DONE;
    }
    *rc = x->plugin->code.on_call(x, mem, bytes_of(what->method), bytes_of(what->input));
    return *rc == STOA_ROOM_NONE ? RUN_ABSENT : RUN_DONE;
}

static enum run_end run_decode_error(struct stoa_room_ctx *x, void *mem,
                                     const struct invocation *what, stoa_room_rc *rc)
{
    if (!x->plugin->code.on_decode_error)
        return RUN_ABSENT;
    if (what->fault)
        (void)failed_with(x, what->fault);
    *rc = x->plugin->code.on_decode_error(x, mem, bytes_of(what->input), &x->error);
    return RUN_DONE;
}

static enum run_end run_error(struct stoa_room_ctx *x, void *mem, const struct invocation *what,
                              stoa_room_rc *rc)
{
    static const stoa_room_phase phases[PHASE_COUNT] = {[PHASE_CONNECT] = STOA_ROOM_ON_CONNECT,
                                                        [PHASE_EVENT] = STOA_ROOM_ON_EVENT,
                                                        [PHASE_DECODE_ERROR] =
                                                            STOA_ROOM_ON_DECODE_ERROR,
                                                        [PHASE_CLOSE] = STOA_ROOM_ON_CLOSE,
                                                        [PHASE_ALARM] = STOA_ROOM_ON_ALARM,
                                                        [PHASE_CALL] = STOA_ROOM_ON_CALL};
    if (!x->plugin->code.on_error)
        return RUN_ABSENT;
    if (what->fault)
        (void)failed_with(x, what->fault);
    *rc = x->plugin->code.on_error(x, mem, phases[what->failed], &x->error);
    return RUN_DONE;
}

static enum run_end plugin_run(struct handler *h, struct context *ctx, void *mem,
                               const struct invocation *what, struct run **run,
                               struct strbuf *result, struct fault *fault)
{
    static enum run_end (*const by_phase[PHASE_COUNT])(
        struct stoa_room_ctx *, void *, const struct invocation *,
        stoa_room_rc *) = {[PHASE_CONNECT] = run_connect, [PHASE_EVENT] = run_event,
                           [PHASE_CLOSE] = run_close,     [PHASE_ALARM] = run_alarm,
                           [PHASE_CALL] = run_call,       [PHASE_DECODE_ERROR] = run_decode_error,
                           [PHASE_ERROR] = run_error};
    static const char *const names[PHASE_COUNT] = {
        [PHASE_CONNECT] = "on_connect", [PHASE_EVENT] = "on_event",
        [PHASE_CLOSE] = "on_close",     [PHASE_ALARM] = "on_alarm",
        [PHASE_CALL] = "on_call",       [PHASE_DECODE_ERROR] = "on_decode_error",
        [PHASE_ERROR] = "on_error"};
    struct stoa_room_ctx x = enter(h, ctx, what->phase);
    stoa_room_rc rc = STOA_ROOM_OK;
    x.streams = what->streams;
    enum run_end end = by_phase[what->phase](&x, mem, what, &rc);
    if (end == RUN_DONE)
        return ended(&x, rc, names[what->phase], run, result, fault);
    if (end == RUN_UNDECODED)
        fault_of_rc(&x, STOA_ROOM_E_VALIDATION, names[what->phase], fault);
    leave(&x);
    return end;
}

static enum run_end plugin_resume(struct handler *h, struct context *ctx, void *mem,
                                  struct run **run, const struct wake *wake, struct strbuf *result,
                                  struct fault *fault)
{
    struct run *before = *run;
    struct stoa_room_ctx x = enter(h, ctx, before->phase);
    stoa_room_rc rc = wake->fault ? failed_with(&x, wake->fault) : STOA_ROOM_OK;
    stoa_room_bytes value = wake->fault ? (stoa_room_bytes){0} : bytes_of(wake->value);
    x.streams = before->streams;
    x.items = before->items;
    x.result = before->result;
    before->result = (struct strbuf){0};
    *run = NULL;
    if (before->reply)
        rc = before->reply(&x, mem, rc, value, before->ud);
    mem_free(before);
    return ended(&x, rc, "the reply", run, result, fault);
}

static void plugin_abandon(struct handler *h, struct run **run)
{
    (void)h;
    run_drop(run);
}

/* ---- identify ---- */

static struct slice identity_keep(struct strbuf *kept, stoa_room_bytes bytes)
{
    strbuf_reset(kept);
    strbuf_put_slice(kept, slice_in(bytes));
    return strbuf_slice(kept);
}

/* Without identify it is who the token says: claims id, tags, att. */
static void identity_of_claims(struct plugin *p, struct slice request, struct persona *out)
{
    struct json_value claims = json_get(request, "claims");
    if (claims.type != JSON_OBJECT)
        return;
    struct json_value id = json_get(claims.raw, "id"), tags = json_get(claims.raw, "tags"),
                      att = json_get(claims.raw, "att");
    strbuf_reset(&p->id);
    if (id.type == JSON_STRING && json_unescape(id, &p->id))
        out->id = strbuf_slice(&p->id);
    if (tags.type == JSON_ARRAY)
        out->tags = identity_keep(&p->tags, bytes_of(tags.raw));
    if (att.type != JSON_NONE)
        out->state = identity_keep(&p->state, bytes_of(att.raw));
}

/* Whether what identify said can be taken; else why. */
static bool identity_is_fit(struct stoa_room_ctx *x, const stoa_room_identity *said)
{
    const stoa_room_vtable *code = &x->plugin->code;
    struct slice tags = slice_in(said->tags), state = slice_in(said->state),
                 meta = slice_in(said->meta);
    const char *why = NULL;
    if (tags.size > 0 && (!json_valid(tags) || json_type_of(tags) != JSON_ARRAY))
        (void)fault_rc(x, STOA_ROOM_E_UPGRADE, "identify: tags are a JSON array of strings");
    else if ((state.size > 0 && !json_valid(state)) || (meta.size > 0 && !json_valid(meta)))
        (void)fault_rc(x, STOA_ROOM_E_UPGRADE, "identify: state and meta are JSON");
    else if (state.size > 0 && code->decode_connection &&
             code->decode_connection(said->state, &why) != STOA_ROOM_OK)
        (void)fault_rc(x, STOA_ROOM_E_UPGRADE, "identify: the state is not one of the room's%s%s",
                       why ? ": " : "", why ? why : "");
    else
        return true;
    return false;
}

static bool plugin_identify(struct handler *h, struct slice request, struct persona *out,
                            struct fault *fault)
{
    struct plugin *p = plugin_of(h);
    *out = (struct persona){0};
    if (!json_valid(request) || json_type_of(request) != JSON_OBJECT) {
        fault_set(fault, "UpgradeError", "the request is no JSON object");
        return false;
    }
    if (!p->code.identify) {
        identity_of_claims(p, request, out);
        return true;
    }
    struct stoa_room_ctx x = enter(h, NULL, PHASE_CONNECT);
    stoa_room_identity said = {0};
    stoa_room_rc rc = p->code.identify(&x, bytes_of(request), &said);
    bool ok = rc == STOA_ROOM_OK && identity_is_fit(&x, &said);
    if (ok) {
        *out = (struct persona){.id = identity_keep(&p->id, said.id),
                                .tags = identity_keep(&p->tags, said.tags),
                                .state = identity_keep(&p->state, said.state),
                                .meta = identity_keep(&p->meta, said.meta)};
    } else if (rc == STOA_ROOM_E_UPGRADE && x.error.rc == rc && x.fault.status != 0) {
        out->status = x.fault.status; /* host->refuse */
        out->refusal = identity_keep(&p->refusal, bytes_of(strbuf_slice(&x.fault.message)));
        ok = true;
    } else {
        fault_of_rc(&x, rc == STOA_ROOM_OK ? STOA_ROOM_E_UPGRADE : rc, "identify", fault);
    }
    leave(&x);
    return ok;
}

/* ---- life ---- */

static void *plugin_load(struct handler *h, struct context *ctx)
{
    struct plugin *p = plugin_of(h);
    if (!p->code.load)
        return NULL;
    struct stoa_room_ctx x = enter(h, ctx, PHASE_COUNT);
    void *mem = p->code.load(&x);
    leave(&x);
    return mem;
}

static void plugin_unload(struct handler *h, void *mem)
{
    struct plugin *p = plugin_of(h);
    if (p->code.unload && mem)
        p->code.unload(mem);
}

static void plugin_free(struct plugin *p)
{
    struct strbuf *kept[] = {&p->id, &p->tags, &p->state, &p->meta, &p->refusal};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        strbuf_free(kept[i]);
    strbuf_free(&p->handler.traits.auto_request);
    strbuf_free(&p->handler.traits.auto_response);
    mem_free(p->arena);
    mem_free(p);
}

static void plugin_destroy(struct handler *h)
{
    struct plugin *p = plugin_of(h);
    struct plugin_options options = p->options;
    if (p->code.shut)
        p->code.shut();
    plugin_free(p);
    if (options.release)
        options.release(options.owner);
}

/* ---- loading ---- */

static bool on_duplicate_of(const char *name, enum on_duplicate *out)
{
    static const char *const names[] = {"allow", "replace", "reject"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum on_duplicate)i;
            return true;
        }
    }
    return false;
}

static bool auto_text_fits(const char *text)
{
    size_t size = strlen(text);
    return size > 0 && size <= AUTO_TEXT_MAX_BYTES && utf8_valid(slice_text(text));
}

/* NULL, or what is wrong with them. */
static const char *traits_take(struct handler_traits *t, const stoa_room_traits *said)
{
    if (!said)
        return NULL;
    if (said->on_duplicate && !on_duplicate_of(said->on_duplicate, &t->on_duplicate))
        return "on_duplicate is \"allow\", \"replace\" or \"reject\"";
    if (said->max_connections > 32768)
        return "max_connections is at most 32768";
    if (said->max_connection_state > 16384)
        return "max_connection_state is at most 16384 bytes";
    if (said->alarm_retries != STOA_ROOM_NO_RETRIES && said->alarm_retries > 100)
        return "alarm_retries is at most 100";
    if (!said->auto_request != !said->auto_response)
        return "auto_request and auto_response belong together";
    if (said->auto_request &&
        (!auto_text_fits(said->auto_request) || !auto_text_fits(said->auto_response)))
        return "auto_request and auto_response are texts of 1 to 2048 bytes";
    if (said->max_connections)
        t->max_connections = said->max_connections;
    if (said->max_connection_state)
        t->max_connection_state = said->max_connection_state;
    if (said->alarm_retries)
        t->alarm_retries = said->alarm_retries == STOA_ROOM_NO_RETRIES ? 0 : said->alarm_retries;
    t->state_version = said->state_version;
    t->rollback = said->rollback != 0;
    t->exclusive = said->exclusive != 0;
    if (said->auto_request) {
        strbuf_put_text(&t->auto_request, said->auto_request);
        strbuf_put_text(&t->auto_response, said->auto_response);
    }
    return NULL;
}

/* As much of the table as both sides know. False: it cannot be used. */
static bool code_take(stoa_room_vtable *code, const stoa_room_vtable *from, struct strbuf *why)
{
    if (from->abi != STOA_ROOM_ABI) {
        strbuf_printf(why,
                      "it is built for ABI %u of stoa_room.h, this shard has %u: build it anew",
                      (unsigned)from->abi, STOA_ROOM_ABI);
        return false;
    }
    if (from->size < offsetof(stoa_room_vtable, traits) || !from->name || !from->name[0]) {
        strbuf_put_text(why, "its table has no size or no name: set .size = sizeof and .name");
        return false;
    }
    *code = (stoa_room_vtable){0};
    memcpy(code, from, from->size < sizeof *code ? from->size : sizeof *code);
    return true;
}

static bool plugin_open(struct plugin *p, struct strbuf *why)
{
    struct slice config = p->options.config.size > 0 ? p->options.config : slice_text("{}");
    const char *reason = traits_take(&p->handler.traits, p->code.traits);
    if (reason) {
        strbuf_put_text(why, reason);
        return false;
    }
    if (!p->code.open || p->code.open(&plugin_host, bytes_of(config), &reason) == STOA_ROOM_OK)
        return true;
    strbuf_printf(why, "its open failed%s%s", reason ? ": " : " and did not say why",
                  reason ? reason : "");
    return false;
}

int plugin_handler_create(struct handler **out, const char *file_name,
                          const stoa_room_vtable *plugin, const struct plugin_options *options,
                          struct strbuf *why)
{
    static const struct handler_vtable vtable = {.destroy = plugin_destroy,
                                                 .identify = plugin_identify,
                                                 .load = plugin_load,
                                                 .unload = plugin_unload,
                                                 .run = plugin_run,
                                                 .resume = plugin_resume,
                                                 .abandon = plugin_abandon};
    struct plugin *p = mem_alloc(sizeof *p);
    *p = (struct plugin){.handler = {.vtable = &vtable, .traits = HANDLER_TRAITS_DEFAULT},
                         .arena = mem_alloc(PLUGIN_ARENA_BYTES)};
    if (options)
        p->options = *options;
    *out = NULL;
    size_t begun = why->size;
    strbuf_printf(why, "%s: ", file_name);
    if (!code_take(&p->code, plugin, why) || !plugin_open(p, why)) {
        plugin_free(p);
        return ERR_INVALID;
    }
    why->size = begun;
    *out = &p->handler;
    return ERR_OK;
}
