/* The robot of test_shard_actor*.c (test_shard_actor_robot.h). */
#include "test_shard_actor_robot.h"

#include <stdarg.h>

struct robot robot;
struct rig *rig;

struct run {
    char rest[200]; /* what is still to be done */
};

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    strbuf_printf(&robot.diary, "%s%s", robot.diary.size ? " " : "", line);
}

static bool is(const char *word, const char *name, const char **rest)
{
    size_t size = strlen(name);
    if (strncmp(word, name, size) != 0 || (word[size] != 0 && word[size] != ' '))
        return false;
    *rest = word + size + (word[size] == ' ');
    return true;
}

static bool sibling(struct context *ctx, const char *rest, struct fault *fault)
{
    char verb[16], key[32], input[160] = "";
    sscanf(rest, "%15s %31s %159[^\n]", verb, key, input);
    enum sibling_verb v = strcmp(verb, "send") == 0    ? SIBLING_SEND
                          : strcmp(verb, "state") == 0 ? SIBLING_STATE
                                                       : SIBLING_CALL;
    char json[170];
    snprintf(json, sizeof json, "\"%s\"", input);
    return context_sibling(ctx, v, slice_text("c"), slice_text(key),
                           slice_text(v == SIBLING_CALL ? "do" : ""),
                           slice_text(v == SIBLING_STATE ? "" : json), fault);
}

static long long state_number(struct context *ctx)
{
    char text[32] = "0";
    struct slice state;
    if (context_recall(ctx, &state))
        snprintf(text, sizeof text, "%.*s", SLICE_FMT(state));
    return strtoll(text, NULL, 10);
}

/* RUN_DONE, RUN_FAILED, RUN_UNDECODED or RUN_YIELDED. */
static enum run_end order(struct context *ctx, const char *word, struct strbuf *result,
                          struct fault *fault)
{
    const struct recipients all = {0};
    const char *rest = "";
    char json[200];
    bool fine = true;
    snprintf(json, sizeof json, "\"%s\"", strchr(word, ' ') ? strchr(word, ' ') + 1 : "");
    if (is(word, "say", &rest))
        fine = context_broadcast(ctx, slice_text(json), &all, fault);
    else if (is(word, "pub", &rest))
        fine = context_publish(ctx, slice_text(json), &(struct publish_wish){.who = all}, fault);
    else if (is(word, "eph", &rest))
        fine = context_publish(ctx, slice_text(json),
                               &(struct publish_wish){.who = all, .ephemeral = true}, fault);
    else if (is(word, "set", &rest))
        fine = context_save(ctx, slice_text(rest), fault);
    else if (is(word, "att", &rest))
        fine = context_set_state(ctx, context_connection(ctx), slice_text(rest), fault);
    else if (is(word, "bye", &rest))
        fine = context_close(ctx, context_connection(ctx), 4001, slice_text("bye"), fault);
    else if (is(word, "alarm", &rest))
        fine = context_schedule_at(ctx, context_now_ms(ctx) + (int)strtol(rest, NULL, 10), fault);
    else if (is(word, "item", &rest))
        fine = context_item(ctx, slice_text(json), fault);
    else if (is(word, "purge", &rest))
        context_purge(ctx);
    else if (is(word, "add", &rest)) {
        snprintf(json, sizeof json, "%lld", state_number(ctx) + strtoll(rest, NULL, 10));
        fine = context_save(ctx, slice_text(json), fault);
    } else if (is(word, "inc", &rest)) {
        snprintf(json, sizeof json, "%lld", state_number(ctx) + 1);
        fine = context_save(ctx, slice_text(json), fault) &&
               context_broadcast(ctx, slice_text(json), &all, fault);
        strbuf_put_text(result, json);
    } else if (is(word, "sleep", &rest))
        return context_sleep(ctx, (int)strtol(rest, NULL, 10), fault) ? RUN_YIELDED : RUN_FAILED;
    else if (is(word, "sib", &rest))
        return sibling(ctx, rest, fault) ? RUN_YIELDED : RUN_FAILED;
    else if (is(word, "fail", &rest)) {
        fault_set(fault, rest[0] ? rest : "RoomExecutionError", "secret");
        fine = false;
    } else if (is(word, "endless", &rest)) {
        fault_set(fault, "RoomExecutionError", "too long");
        return RUN_KILLED;
    } else if (is(word, "bad", &rest)) {
        fault_set(fault, "RoomValidationError", "not a word");
        return RUN_UNDECODED;
    }
    return fine ? RUN_DONE : RUN_FAILED;
}

static enum run_end obey(struct context *ctx, const char *script, struct run **run,
                         struct strbuf *result, struct fault *fault)
{
    char words[200];
    snprintf(words, sizeof words, "%s", script);
    for (char *word = words; word;) {
        char *end = strchr(word, ';');
        if (end)
            *end = 0;
        enum run_end how = order(ctx, word, result, fault);
        word = end ? end + 1 : NULL;
        if (how == RUN_YIELDED) {
            *run = mem_zalloc(sizeof **run);
            snprintf((*run)->rest, sizeof(*run)->rest, "%s", word ? word : "");
        }
        if (how != RUN_DONE)
            return how;
    }
    return RUN_DONE;
}

static void on_destroy(struct handler *h)
{
    (void)h;
}

static bool on_identify(struct handler *h, struct slice request, struct persona *out,
                        struct fault *fault)
{
    (void)h;
    if (robot.hangs) {
        fault_set(fault, "RoomExecutionError", "too long");
        out->stopped = true;
        return false;
    }
    *out = (struct persona){
        .id = request, .tags = slice_text("[\"t\"]"), .state = slice_text("{\"n\":1}")};
    if (!robot.refuses)
        return true;
    out->status = 403;
    out->refusal = slice_text("not you");
    return true;
}

static void *on_load(struct handler *h, struct context *ctx)
{
    (void)h;
    (void)ctx;
    robot.loaded++;
    return mem_zalloc(1);
}

static void on_unload(struct handler *h, void *mem)
{
    (void)h;
    mem_free(mem);
}

static const char *script_of(const struct invocation *what, char words[200])
{
    switch (what->phase) {
    case PHASE_CONNECT:
        return robot.on_connect ? robot.on_connect : "";
    case PHASE_ALARM:
        return robot.on_alarm ? robot.on_alarm : "";
    case PHASE_CLOSE:
        return robot.on_close;
    case PHASE_DECODE_ERROR:
        return robot.on_decode_error;
    case PHASE_ERROR:
        return robot.handles_errors ? "say sorry" : NULL;
    default:
        snprintf(words, 200, "%.*s", SLICE_FMT(what->input));
        if (words[0] != '"')
            return words;
        words[strlen(words) - 1] = 0; /* a sibling speaks JSON */
        return words + 1;
    }
}

static void write_down(struct context *ctx, const struct invocation *what)
{
    const struct connection *c = context_connection(ctx);
    struct slice session = c ? connection_session(c) : slice_text("-");
    if (what->phase == PHASE_CLOSE)
        note("close:%.*s:%u%s%s%s", SLICE_FMT(session), what->code, what->clean ? ":clean" : "",
             what->replaced ? ":replaced" : "", what->recovered ? ":recovered" : "");
    else if (what->phase == PHASE_ERROR)
        note("error:%s", phase_name(what->failed));
    else
        note("%s:%.*s", phase_name(what->phase), SLICE_FMT(session));
}

static enum run_end on_run(struct handler *h, struct context *ctx, void *mem,
                           const struct invocation *what, struct run **run, struct strbuf *result,
                           struct fault *fault)
{
    char words[200];
    (void)h;
    ck_assert_ptr_nonnull(mem);
    if (what->phase == PHASE_CALL && !slice_is(what->method, "do"))
        return RUN_ABSENT;
    const char *script = script_of(what, words);
    if (!script)
        return RUN_ABSENT;
    write_down(ctx, what);
    if (what->phase == PHASE_ALARM) {
        strbuf_reset(&robot.system_failure);
        strbuf_put_text(&robot.system_failure,
                        context_system_failure(ctx) ? context_system_failure(ctx) : "none");
    }
    return obey(ctx, script, run, result, fault);
}

static enum run_end on_resume(struct handler *h, struct context *ctx, void *mem, struct run **run,
                              const struct wake *wake, struct strbuf *result, struct fault *fault)
{
    const struct recipients all = {0};
    struct run *was = *run;
    (void)h;
    ck_assert_ptr_nonnull(mem);
    *run = NULL;
    if (wake->fault)
        note("wake:%s:%s", wake->fault->tag, strbuf_cstr((struct strbuf *)&wake->fault->message));
    else
        note("wake:%.*s", SLICE_FMT(wake->value));
    strbuf_put_slice(result, wake->value);
    ck_assert(context_broadcast(ctx, slice_text("\"woke\""), &all, fault));
    enum run_end end = obey(ctx, was->rest, run, result, fault);
    mem_free(was);
    return end;
}

static void on_abandon(struct handler *h, struct run **run)
{
    (void)h;
    note("abandon");
    mem_free(*run);
    *run = NULL;
}

struct rig_client *robot_begin(void)
{
    static const struct handler_vtable vtable = {.destroy = on_destroy,
                                                 .identify = on_identify,
                                                 .load = on_load,
                                                 .unload = on_unload,
                                                 .run = on_run,
                                                 .resume = on_resume,
                                                 .abandon = on_abandon};
    robot = (struct robot){.handler = {.vtable = &vtable, .traits = HANDLER_TRAITS_DEFAULT},
                           .on_close = "say left"};
    struct shard_type types[] = {
        {.name = "events", .retention = {HOUR_MS, 10000, 16 * MIB}},
        {.name = "c", .retention = {HOUR_MS, 10000, 16 * MIB}, .handler = &robot.handler}};
    rig = rig_create(types, 2);
    return rig_connect(rig, ROLE_GATEWAY);
}

void robot_end(void)
{
    rig_destroy(rig);
    strbuf_free(&robot.diary);
    strbuf_free(&robot.system_failure);
}

const struct message *robot_join(struct rig_client *g, const char *key, const char *session,
                                 const char *id, bool again)
{
    struct message m = {.type = MSG_JOIN, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    m.join.session = slice_text(session);
    m.join.request = slice_text(id);
    m.join.again = again;
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    const struct got *got = rig_answer(g, cid);
    return got ? &got->m : NULL;
}

void robot_leave(struct rig_client *g, const char *key, const char *session, unsigned code)
{
    struct message m = {.type = MSG_LEAVE, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    m.leave.session = slice_text(session);
    m.leave.code = code;
    m.leave.clean = 1;
    (void)rig_send(g, m);
    rig_pump(rig);
}

void robot_input(struct rig_client *g, const char *key, const char *session, uint64_t counter,
                 const char *frame)
{
    struct message m = {.type = MSG_INPUT, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    m.input.session = slice_text(session);
    m.input.counter = counter;
    m.input.frame = slice_text(frame);
    (void)rig_send(g, m);
}

const struct message *robot_call(struct rig_client *g, struct robot_call call)
{
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text(call.key)};
    m.call.verb = call.verb;
    m.call.name = slice_text(call.name ? call.name : call.verb == VERB_METHOD ? "do" : "");
    m.call.input = slice_text(call.input ? call.input : "");
    m.call.streams = call.streams;
    rig_id(m.call.msg_id, call.id);
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    const struct got *got = rig_answer(g, cid);
    return got ? &got->m : NULL;
}

static const char *json_of(const struct message *m)
{
    static char text[4096];
    ck_assert_ptr_nonnull(m);
    ck_assert_int_eq((int)m->type, MSG_RESULT);
    ck_assert_uint_eq(m->result.status, 0);
    snprintf(text, sizeof text, "%.*s", SLICE_FMT(m->result.json));
    return text;
}

const char *robot_connections(struct rig_client *g, const char *key, const char *tag)
{
    return json_of(
        robot_call(g, (struct robot_call){.key = key, .verb = VERB_CONNECTIONS, .name = tag}));
}

const char *robot_state(struct rig_client *g, const char *key)
{
    return json_of(robot_call(g, (struct robot_call){.key = key, .verb = VERB_STATE}));
}

const char *robot_diary(void)
{
    static char text[4096];
    snprintf(text, sizeof text, "%.*s", SLICE_FMT(strbuf_slice(&robot.diary)));
    strbuf_reset(&robot.diary);
    return text;
}
