/* Rooms in C: the counter of examples/, opened as the shard opens it, and a plug-in of this file
 * for what a counter never does. The room is built by hand; a segment's end is imitated. */
#include "test_shard_rig.h"

#include "common/json.h"
#include "shard/actor.h"
#include "shard/plugin_handler.h"
#include "shard/shell_plugin.h"

#undef fail /* of check.h: the host has a function of that name */

static struct shard shard;
static struct actor actor;
static struct segment segment;
static struct context ctx;
static struct fault fault;
static struct strbuf result, why;
static struct run *run;
static struct handler *handler;

static void room_begin(struct handler *h, const char *key)
{
    static struct type declared = {.name = (char *)"counter", .name_size = 7};
    memset(&shard, 0, sizeof shard);
    shard.types[0] = declared;
    shard.n_types = 1;
    shard.payload_max_bytes = PAYLOAD_MAX_BYTES;
    handler = h;
    actor = (struct actor){.room = room_create(slice_text(key), 7), .handler = h};
    ctx = (struct context){.s = &shard, .actor = &actor, .segment = &segment, .now_ms = 1000};
    segment_begin(&segment);
    actor.segment = &segment;
}

static void begin(void)
{
    struct handler *h = NULL;
    ck_assert_msg(plugin_load_file(&h, ROOMS "/counter.so", slice_text(""), &why) == ERR_OK, "%s",
                  strbuf_cstr(&why));
    room_begin(h, "counter:main");
}

static struct connection *join(const char *session, const char *id, const char *state)
{
    struct connection *c = mem_zalloc(sizeof *c);
    c->actor = &actor;
    c->number = ++actor.next_number;
    c->session_size = (uint8_t)strlen(session);
    memcpy(c->session, session, strlen(session) + 1);
    strbuf_put_text(&c->id, id);
    strbuf_put_text(&c->state, state);
    *VEC_PUSH(&actor.connections, struct connection *) = c;
    return c;
}

/* What the shard does with a segment that ended well, as far as these tests look. */
static void apply(void)
{
    if (segment.state_set) {
        actor.has_state = true;
        strbuf_reset(&actor.state);
        strbuf_put_slice(&actor.state, strbuf_slice(&segment.state));
    }
    for (size_t i = 0; i < segment.states.count; i++) {
        const struct state_change *change = &VEC_AT(&segment.states, struct state_change)[i];
        strbuf_reset(&change->connection->state);
        strbuf_put(&change->connection->state, segment.bytes.data + change->at, change->size);
    }
    segment_free(&segment);
}

static void end(void)
{
    segment_free(&segment);
    for (size_t i = 0; i < actor.connections.count; i++) {
        struct connection *c = VEC_AT(&actor.connections, struct connection *)[i];
        strbuf_free(&c->id);
        strbuf_free(&c->state);
        mem_free(c);
    }
    vec_free(&actor.connections);
    strbuf_free(&actor.state);
    room_destroy(&actor.room);
    strbuf_free(&result);
    strbuf_free(&why);
    fault_free(&fault);
    handler->vtable->destroy(handler);
}

static enum run_end invoke(struct invocation what)
{
    ctx.phase = what.phase;
    strbuf_reset(&result);
    return handler->vtable->run(handler, &ctx, NULL, &what, &run, &result, &fault);
}

static enum run_end event(const char *text)
{
    return invoke((struct invocation){.phase = PHASE_EVENT, .input = slice_text(text)});
}

static enum run_end call(const char *method, const char *input)
{
    return invoke((struct invocation){
        .phase = PHASE_CALL, .method = slice_text(method), .input = slice_text(input)});
}

static enum run_end wake(const char *value)
{
    const struct wake w = {.value = slice_text(value)};
    strbuf_reset(&result);
    return handler->vtable->resume(handler, &ctx, NULL, &run, &w, &result, &fault);
}

static const char *sent(size_t nth)
{
    static char out[128];
    if (nth >= segment.outputs.count)
        return "nothing";
    const struct output *o = &VEC_AT(&segment.outputs, struct output)[nth];
    (void)snprintf(out, sizeof out, "%.*s", (int)o->payload_size,
                   (const char *)segment.bytes.data + o->payload_at);
    return out;
}

#define ck_result(end_, text_)                           \
    do {                                                 \
        ck_assert_int_eq((end_), RUN_DONE);              \
        ck_assert_str_eq(strbuf_cstr(&result), (text_)); \
    } while (0)

/* ---- the counter ---- */

START_TEST(frames_add_and_everybody_gets_the_count)
{
    begin();
    ctx.connection = join("s1", "ann", "{\"added\":3}");
    ck_assert_int_eq(invoke((struct invocation){.phase = PHASE_CONNECT}), RUN_DONE);
    ck_assert_str_eq(sent(0), "{\"count\":0}");
    apply();
    ck_assert_int_eq(event("{\"add\":2}"), RUN_DONE);
    ck_assert_str_eq(sent(0), "{\"count\":2}");
    ck_assert_int_eq(segment.alarm, ALARM_SET);
    ck_assert_int_eq(segment.alarm_ms, 1000 + 3600 * 1000);
    apply();
    ck_assert_str_eq(strbuf_cstr(&ctx.connection->state), "{\"added\":5}");
    ctx.connection = NULL;
    ck_assert_int_eq(event(" { \"add\" : -5 } "), RUN_DONE);
    ck_assert_str_eq(sent(0), "{\"count\":-3}");
    apply();
    ck_result(call("get", ""), "-3");
    ck_assert_int_eq(invoke((struct invocation){.phase = PHASE_ALARM}), RUN_DONE);
    ck_assert_str_eq(sent(0), "{\"count\":0}");
    end();
}
END_TEST

START_TEST(what_is_not_one_of_the_rooms_events_does_not_run)
{
    begin();
    join("s1", "ann", "null");
    const char *bad[] = {"", "hello", "{\"add\":1.5}", "{\"add\":\"1\"}", "[1]", "{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(event(bad[i]), RUN_UNDECODED);
        ck_assert_str_eq(fault.tag, "RoomValidationError");
        ck_assert_uint_gt(fault.message.size, 0);
    }
    ck_assert_uint_eq(segment.outputs.count, 0);
    end();
}
END_TEST

START_TEST(methods_answer_fail_and_are_missing)
{
    begin();
    ck_result(call("add", "{\"by\":40}"), "40");
    ck_result(call("add", ""), "41");
    ck_assert_int_eq(call("fly", ""), RUN_ABSENT);
    ck_assert_int_eq(call("add", "{\"by\":true}"), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "RoomValidationError");
    ck_assert_str_eq(strbuf_cstr(&fault.message), "`by` is a whole number");
    ck_assert_int_eq(call("add", "{\"by\":1000000000000}"), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "OutOfRange");
    ck_assert_uint_eq(fault.status, 409);
    ck_assert_str_eq(strbuf_cstr(&fault.data), "{\"by\":1000000000000}");
    ck_assert_int_eq(call("add", "{by"), RUN_FAILED);
    ck_result(call("get", ""), "41");
    end();
}
END_TEST

START_TEST(a_sleep_ends_in_a_segment_of_its_own)
{
    begin();
    ck_result(call("add", "{\"by\":1}"), "1");
    apply();
    ck_assert_int_eq(call("add_later", "{\"by\":2,\"ms\":50}"), RUN_YIELDED);
    ck_assert_ptr_nonnull(run);
    ck_assert_int_eq(segment.wait, WAIT_SLEEP);
    ck_assert_int_eq(segment.sleep_ms, 50);
    ck_assert_uint_eq(result.size, 0);
    apply();
    struct run *sleeping = run;
    ck_result(call("add", "{\"by\":10}"), "11"); /* meanwhile */
    apply();
    run = sleeping;
    ck_result(wake(""), "13");
    ck_assert_ptr_null(run);
    ck_assert_int_eq(call("add_later", "{\"ms\":99999}"), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "RoomError");
    apply();
    ck_assert_int_eq(call("add_later", "{\"ms\":1}"), RUN_YIELDED);
    handler->vtable->abandon(handler, &run); /* frees what the plug-in kept */
    ck_assert_ptr_null(run);
    end();
}
END_TEST

START_TEST(a_sibling_answers_or_fails)
{
    begin();
    ck_assert_int_eq(call("copy", "{\"from\":\"oth\\u0065r\"}"), RUN_YIELDED);
    ck_assert_int_eq(segment.wait, WAIT_SIBLING);
    ck_assert_int_eq(segment.verb, SIBLING_STATE);
    ck_assert_str_eq(strbuf_cstr(&segment.sibling_key), "counter:other");
    apply();
    ck_result(wake("{\"count\":77}"), "77");
    apply();
    ck_assert_int_eq(call("copy", "{\"from\":\"other\"}"), RUN_YIELDED);
    apply();
    struct fault lost = {0};
    fault_set(&lost, "Unknown", "no answer within 5 s");
    lost.status = 504;
    const struct wake w = {.fault = &lost};
    ck_assert_int_eq(handler->vtable->resume(handler, &ctx, NULL, &run, &w, &result, &fault),
                     RUN_FAILED);
    ck_assert_str_eq(fault.tag, "Unknown");
    ck_assert_uint_eq(fault.status, 504);
    ck_assert_str_eq(strbuf_cstr(&fault.message), "no answer within 5 s");
    fault_free(&lost);
    ck_assert_int_eq(call("copy", "{}"), RUN_FAILED);
    end();
}
END_TEST

static bool identify(const char *request, struct persona *who)
{
    return handler->vtable->identify(handler, slice_text(request), who, &fault);
}

START_TEST(who_one_is_is_asked_first)
{
    begin();
    struct persona who;
    ck_assert(identify("{\"query\":{\"name\":\"ann \\u00e9\"}}", &who));
    ck_assert(slice_is(who.id, "ann \xc3\xa9"));
    ck_assert(slice_is(who.state, "{\"added\":0}"));
    ck_assert_uint_eq(who.status, 0);
    ck_assert(identify("{\"query\":{}}", &who));
    ck_assert_uint_eq(who.id.size + who.state.size, 0);
    ck_assert(identify("{\"query\":{\"name\":\"\"}}", &who));
    ck_assert_uint_eq(who.status, 400);
    ck_assert(slice_is(who.refusal, "name must not be empty"));
    ck_assert(!identify("[]", &who));
    ck_assert_str_eq(fault.tag, "UpgradeError");
    ck_assert_str_eq(plugin_handler_name(handler), "counter");
    ck_assert(slice_is(
        slice_of(handler->traits.auto_response.data, handler->traits.auto_response.size), "pong"));
    end();
}
END_TEST

/* ---- files that are refused ---- */

static void check_refused(const char *path, const char *words)
{
    struct handler *h = NULL;
    strbuf_reset(&why);
    ck_assert_int_eq(plugin_load_file(&h, path, slice_text(""), &why), ERR_INVALID);
    ck_assert_ptr_null(h);
    ck_assert_msg(strstr(strbuf_cstr(&why), path), "%s", strbuf_cstr(&why));
    ck_assert_msg(strstr(strbuf_cstr(&why), words), "%s", strbuf_cstr(&why));
    ck_assert_ptr_null(strchr(strbuf_cstr(&why), '\n'));
}

START_TEST(a_file_that_is_no_room_is_refused_with_its_name_and_why)
{
    check_refused(ROOMS "/there-is-none.so", "No such file");
    check_refused(ROOMS "/refused/plugin_none.so", "no symbol stoa_room_plugin");
    check_refused(ROOMS "/refused/plugin_null.so", "build it anew");
    check_refused(ROOMS "/refused/plugin_old.so", "is built for ABI 8");
    strbuf_free(&why);
}
END_TEST

/* ---- a plug-in of this file ---- */

static const stoa_room_host *host;
static char seen[256];
static int replies_dropped, released, shut;
static stoa_room_rc (*next)(stoa_room_ctx *ctx); /* what on_event does */

static stoa_room_rc odd_open(const stoa_room_host *table, stoa_room_bytes config, const char **why_)
{
    (void)why_;
    host = table;
    (void)snprintf(seen, sizeof seen, "%.*s", (int)config.n, config.p);
    if (config.n != 2)
        *why_ = "it wants no configuration";
    return config.n == 2 ? STOA_ROOM_OK : STOA_ROOM_E_ROOM;
}

static void odd_shut(void)
{
    shut++;
}

static stoa_room_rc odd_event(stoa_room_ctx *c, void *mem, stoa_room_bytes text)
{
    (void)mem;
    (void)text;
    return next(c);
}

static stoa_room_rc odd_close(stoa_room_ctx *c, void *mem, const stoa_room_close_info *info)
{
    (void)mem;
    (void)c;
    (void)snprintf(seen, sizeof seen, "%u %.*s%s%s%s", info->code, (int)info->reason.n,
                   info->reason.p, info->clean ? " clean" : "", info->replaced ? " replaced" : "",
                   info->recovered ? " recovered" : "");
    return STOA_ROOM_OK;
}

static stoa_room_rc odd_error(stoa_room_ctx *c, void *mem, stoa_room_phase phase,
                              const stoa_room_error *error)
{
    (void)mem;
    (void)c;
    (void)snprintf(seen, sizeof seen, "%d %s: %s", (int)phase, error->tag, error->message);
    return phase == STOA_ROOM_ON_EVENT ? STOA_ROOM_OK : error->rc;
}

static stoa_room_rc odd_decode_error(stoa_room_ctx *c, void *mem, stoa_room_bytes raw,
                                     const stoa_room_error *error)
{
    (void)mem;
    (void)c;
    (void)snprintf(seen, sizeof seen, "%.*s: %s", (int)raw.n, raw.p, error->tag);
    return STOA_ROOM_OK;
}

static stoa_room_rc small(stoa_room_bytes value, const char **why_)
{
    *why_ = "it is too long for this room";
    return value.n < 20 ? STOA_ROOM_OK : STOA_ROOM_E_VALIDATION;
}

static const stoa_room_traits odd_traits = {.on_duplicate = "replace",
                                            .max_connections = 3,
                                            .alarm_retries = STOA_ROOM_NO_RETRIES,
                                            .exclusive = 1};
static stoa_room_vtable odd = {.abi = STOA_ROOM_ABI,
                               .size = sizeof odd,
                               .name = "odd",
                               .traits = &odd_traits,
                               .open = odd_open,
                               .shut = odd_shut,
                               .decode_state = small,
                               .decode_connection = small,
                               .encode_broadcast = small,
                               .on_event = odd_event,
                               .on_close = odd_close,
                               .on_error = odd_error,
                               .on_decode_error = odd_decode_error};

static void release(void *owner)
{
    ck_assert_int_eq(shut, 1); /* no call into the library afterwards */
    ++*(int *)owner;
}

static void begin_odd(void)
{
    struct handler *h;
    const struct plugin_options options = {.release = release, .owner = &released};
    shut = released = replies_dropped = 0;
    ck_assert_int_eq(plugin_handler_create(&h, "odd.so", &odd, &options, &why), ERR_OK);
    room_begin(h, "counter:odd");
}

static enum run_end does(stoa_room_rc (*what)(stoa_room_ctx *))
{
    next = what;
    return event("1");
}

static stoa_room_rc says_nothing(stoa_room_ctx *c)
{
    (void)c;
    return STOA_ROOM_E_SEND;
}

static stoa_room_rc returns_nonsense(stoa_room_ctx *c)
{
    (void)c;
    return (stoa_room_rc)99;
}

static stoa_room_rc passes_on(stoa_room_ctx *c)
{
    return host->save(c, STOA_ROOM_TEXT("{oops"));
}

static stoa_room_rc fails_anew(stoa_room_ctx *c)
{
    (void)host->save(c, STOA_ROOM_TEXT("{oops"));
    return host->fail(c, STOA_ROOM_E_EXECUTION, "my own reason");
}

static stoa_room_rc handles(stoa_room_ctx *c)
{
    return host->save(c, STOA_ROOM_TEXT("{oops")) == STOA_ROOM_E_ROOM ? STOA_ROOM_OK
                                                                      : STOA_ROOM_E_SEND;
}

static stoa_room_rc fails_otherwise(stoa_room_ctx *c)
{
    (void)host->save(c, STOA_ROOM_TEXT("{oops"));
    return STOA_ROOM_E_SEND;
}

START_TEST(a_failure_has_a_tag_and_a_reason)
{
    begin_odd();
    ck_assert_int_eq(does(fails_otherwise), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "SendError");
    ck_assert_ptr_null(strstr(strbuf_cstr(&fault.message), "JSON"));
    ck_assert_int_eq(does(says_nothing), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "SendError");
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&fault.message), "on_event"));
    ck_assert_int_eq(does(returns_nonsense), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "RoomExecutionError");
    ck_assert_int_eq(does(passes_on), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "RoomError");
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&fault.message), "not JSON"));
    ck_assert_int_eq(does(fails_anew), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "RoomExecutionError");
    ck_assert_str_eq(strbuf_cstr(&fault.message), "my own reason");
    ck_assert_int_eq(does(handles), RUN_DONE);
    end();
    ck_assert_int_eq(released, 1);
}
END_TEST

START_TEST(on_error_deals_with_a_failure_or_not)
{
    begin_odd();
    struct fault failure = {0};
    fault_set(&failure, "OwnCode", "what happened");
    struct invocation what = {.phase = PHASE_ERROR, .failed = PHASE_EVENT, .fault = &failure};
    ck_assert_int_eq(invoke(what), RUN_DONE);
    ck_assert_str_eq(seen, "1 OwnCode: what happened");
    what.failed = PHASE_CALL;
    ck_assert_int_eq(invoke(what), RUN_FAILED);
    ck_assert_str_eq(fault.tag, "OwnCode");
    ck_assert_str_eq(strbuf_cstr(&fault.message), "what happened");
    ck_assert_int_eq(invoke((struct invocation){.phase = PHASE_DECODE_ERROR,
                                                .input = slice_text("<raw>"),
                                                .fault = &failure}),
                     RUN_DONE);
    ck_assert_str_eq(seen, "<raw>: OwnCode");
    fault_free(&failure);
    end();
}
END_TEST

START_TEST(a_close_says_how)
{
    begin_odd();
    ck_assert_int_eq(
        invoke((struct invocation){
            .phase = PHASE_CLOSE, .code = 1006, .reason = slice_text("gone"), .recovered = true}),
        RUN_DONE);
    ck_assert_str_eq(seen, "1006 gone recovered");
    ck_assert_int_eq(invoke((struct invocation){.phase = PHASE_CONNECT}), RUN_ABSENT);
    ck_assert_int_eq(invoke((struct invocation){.phase = PHASE_ALARM}), RUN_ABSENT);
    ck_assert_int_eq(call("any", ""), RUN_ABSENT);
    end();
}
END_TEST

#define LONG_JSON STOA_ROOM_TEXT("\"more than twenty bytes\"")

static stoa_room_rc crosses(stoa_room_ctx *c)
{
    stoa_room_conn *first = host->next(c, (stoa_room_bytes){0}, NULL);
    ck_assert_int_eq(host->save(c, LONG_JSON), STOA_ROOM_E_ROOM);
    ck_assert_ptr_nonnull(strstr(host->error(c)->message, "too long for this room"));
    ck_assert_int_eq(host->set_state(c, first, LONG_JSON), STOA_ROOM_E_ROOM);
    ck_assert_int_eq(host->send(c, first, LONG_JSON), STOA_ROOM_E_SEND);
    ck_assert_int_eq(host->broadcast(c, LONG_JSON, NULL), STOA_ROOM_E_BROADCAST);
    ck_assert_int_eq(host->publish(c, LONG_JSON, NULL), STOA_ROOM_E_BROADCAST);
    ck_assert_int_eq(host->send(c, first, STOA_ROOM_TEXT("1")), STOA_ROOM_OK);
    return STOA_ROOM_OK;
}

START_TEST(a_rooms_own_checks_stand_at_its_borders)
{
    begin_odd();
    join("s1", "ann", "null");
    ck_assert_int_eq(does(crosses), RUN_DONE);
    ck_assert_uint_eq(segment.outputs.count, 1);
    ck_assert(!segment.state_set);
    end();
}
END_TEST

static stoa_room_rc looks_around(stoa_room_ctx *c)
{
    const stoa_room_bytes any = {0}, red = STOA_ROOM_TEXT("red");
    stoa_room_conn *a = host->next(c, any, NULL), *b = host->next(c, any, a);
    ck_assert_uint_eq(host->count(c, any), 2);
    ck_assert_uint_eq(host->count(c, red), 1);
    ck_assert_ptr_eq(host->next(c, red, NULL), b);
    ck_assert_ptr_null(host->next(c, red, b));
    ck_assert_ptr_eq(host->by_id(c, STOA_ROOM_TEXT("bob")), b);
    ck_assert_ptr_null(host->by_id(c, STOA_ROOM_TEXT("nobody")));
    ck_assert_ptr_null(host->conn_tag(b, 1).p);
    ck_assert(host->conn_is_open(a));
    ck_assert_int_eq(host->close(c, a, 4000, STOA_ROOM_TEXT("bye")), STOA_ROOM_OK);
    ck_assert(!host->conn_is_open(a));
    ck_assert_int_eq(host->close(c, b, 1006, any), STOA_ROOM_E_ROOM);
    const stoa_room_bytes to[] = {host->conn_session(b)};
    const stoa_room_recipients who = {.to = to, .n_to = 1};
    const stoa_room_publish wish = {.who = who, .conflate = STOA_ROOM_TEXT("k")};
    ck_assert_int_eq(host->publish(c, STOA_ROOM_TEXT("1"), &wish), STOA_ROOM_OK);
    int64_t at;
    ck_assert_int_eq(host->next_alarm(c, &at), STOA_ROOM_NONE);
    ck_assert_int_eq(host->schedule_at(c, 5000), STOA_ROOM_OK);
    ck_assert_int_eq(host->next_alarm(c, &at), STOA_ROOM_OK);
    ck_assert_int_eq(at, 5000);
    ck_assert_int_eq(host->schedule_in(c, INT64_MAX), STOA_ROOM_E_ROOM);
    ck_assert_int_eq(host->result(c, STOA_ROOM_TEXT("1")), STOA_ROOM_E_ROOM); /* no method */
    stoa_room_bytes text = host->json_quote(c, STOA_ROOM_TEXT("a\"\n"));
    ck_assert(text.n == 7 && memcmp(text.p, "\"a\\\"\\n\"", 7) == 0);
    ck_assert_ptr_null(host->json_get(STOA_ROOM_TEXT("{\"a\":"), "a").p);
    ck_assert_ptr_null(host->json_get(STOA_ROOM_TEXT("[1]"), "a").p);
    ck_assert_int_eq(host->json_text(c, STOA_ROOM_TEXT("1"), &text), STOA_ROOM_NONE);
    ck_assert_int_eq(host->json_text(c, STOA_ROOM_TEXT("\"\""), &text), STOA_ROOM_OK);
    ck_assert(text.p && text.n == 0);
    host->purge(c);
    return STOA_ROOM_OK;
}

START_TEST(the_host_gives_the_room_as_it_is)
{
    begin_odd();
    join("s1", "ann", "null");
    struct connection *b = join("s2", "bob", "{}");
    b->tags[b->n_tags++] = slice_text("red");
    ck_assert_int_eq(does(looks_around), RUN_DONE);
    ck_assert_str_eq(sent(0), "1");
    ck_assert_uint_gt(VEC_AT(&segment.outputs, struct output)[0].filter_size, 0);
    ck_assert_uint_eq(segment.closes.count, 1);
    ck_assert(segment.purge);
    end();
}
END_TEST

static stoa_room_rc on_reply(stoa_room_ctx *c, void *mem, stoa_room_rc rc, stoa_room_bytes value,
                             void *ud)
{
    (void)mem;
    (void)rc;
    (void)value;
    ck_assert_ptr_eq(ud, &replies_dropped);
    if (!c)
        replies_dropped++;
    return c ? host->sleep(c, 2, NULL, NULL) : STOA_ROOM_OK;
}

static stoa_room_rc sleeps(stoa_room_ctx *c)
{
    return host->sleep(c, 1, on_reply, &replies_dropped);
}

static stoa_room_rc sleeps_and_fails(stoa_room_ctx *c)
{
    ck_assert_int_eq(sleeps(c), STOA_ROOM_OK);
    ck_assert_int_eq(sleeps(c), STOA_ROOM_E_ROOM); /* one at a time */
    return STOA_ROOM_E_ROOM;
}

START_TEST(each_reply_comes_once_or_is_told_that_it_will_not)
{
    begin_odd();
    ck_assert_int_eq(does(sleeps_and_fails), RUN_FAILED);
    ck_assert_int_eq(replies_dropped, 1);
    segment_free(&segment);
    ck_assert_int_eq(does(sleeps), RUN_YIELDED);
    segment_free(&segment);
    ck_assert_int_eq(wake(""), RUN_YIELDED); /* the reply sleeps again, and nothing follows */
    segment_free(&segment);
    ck_assert_int_eq(wake(""), RUN_DONE);
    ck_assert_int_eq(does(sleeps), RUN_YIELDED);
    handler->vtable->abandon(handler, &run);
    ck_assert_int_eq(replies_dropped, 2);
    end();
}
END_TEST

static stoa_room_rc odd_call(stoa_room_ctx *c, void *mem, stoa_room_bytes method,
                             stoa_room_bytes input)
{
    (void)mem;
    (void)method;
    (void)input;
    ck_assert_int_eq(host->item(c, STOA_ROOM_TEXT("1")), STOA_ROOM_OK);
    ck_assert_int_eq(host->result(c, STOA_ROOM_TEXT("{oops")), STOA_ROOM_E_ROOM);
    ck_assert_int_eq(host->result(c, STOA_ROOM_TEXT("\"said\"")), STOA_ROOM_OK);
    return host->sleep(c, 1, NULL, NULL);
}

START_TEST(a_result_said_before_a_sleep_is_the_result)
{
    odd.on_call = odd_call;
    begin_odd();
    odd.on_call = NULL;
    ck_assert_int_eq(call("any", ""), RUN_YIELDED);
    ck_assert_uint_eq(segment.items.count, 1);
    segment_free(&segment);
    ck_result(wake(""), "\"said\"");
    end();
}
END_TEST

START_TEST(without_identify_one_is_who_the_token_says)
{
    begin_odd();
    struct persona who;
    ck_assert(identify("{\"query\":{\"id\":\"eve\"},\"claims\":null}", &who));
    ck_assert_uint_eq(who.id.size, 0);
    ck_assert(identify("{\"claims\":{\"id\":\"ann\",\"tags\":[\"a\"],\"att\":{\"x\":1}}}", &who));
    ck_assert(slice_is(who.id, "ann"));
    ck_assert(slice_is(who.tags, "[\"a\"]"));
    ck_assert(slice_is(who.state, "{\"x\":1}"));
    ck_assert_int_eq(handler->traits.on_duplicate, DUPLICATE_REPLACE);
    ck_assert_uint_eq(handler->traits.max_connections, 3);
    ck_assert_uint_eq(handler->traits.max_connection_state, 2048);
    ck_assert_uint_eq(handler->traits.alarm_retries, 0);
    ck_assert(handler->traits.exclusive && !handler->traits.rollback);
    end();
}
END_TEST

static void check_table_refused(const stoa_room_vtable *table, const char *config,
                                const char *words)
{
    struct handler *h = NULL;
    const struct plugin_options options = {
        .config = slice_text(config), .release = release, .owner = &released};
    strbuf_reset(&why);
    released = 0;
    ck_assert_int_eq(plugin_handler_create(&h, "odd.so", table, &options, &why), ERR_INVALID);
    ck_assert_msg(strstr(strbuf_cstr(&why), words), "%s", strbuf_cstr(&why));
    ck_assert_int_eq(strncmp(strbuf_cstr(&why), "odd.so: ", 8), 0);
    ck_assert_int_eq(released, 0); /* it stays its owner's */
}

START_TEST(a_table_is_looked_at_before_it_is_used)
{
    stoa_room_vtable table = odd;
    stoa_room_traits traits = {.max_connections = 32769};
    check_table_refused(&table, "{\"a\":1}", "it wants no configuration");
    table.traits = &traits;
    check_table_refused(&table, "{}", "max_connections");
    traits = (stoa_room_traits){.on_duplicate = "sometimes"};
    check_table_refused(&table, "{}", "on_duplicate");
    traits = (stoa_room_traits){.auto_request = "ping"};
    check_table_refused(&table, "{}", "auto_request");
    traits = (stoa_room_traits){.alarm_retries = 101};
    check_table_refused(&table, "{}", "alarm_retries");
    table.name = "";
    check_table_refused(&table, "{}", "name");
    table = odd;
    table.size = offsetof(stoa_room_vtable, on_event); /* built with a shorter table */
    struct handler *h;
    ck_assert_int_eq(plugin_handler_create(&h, "odd.so", &table, NULL, &why), ERR_OK);
    room_begin(h, "counter:short");
    ck_assert_int_eq(event("1"), RUN_ABSENT);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        frames_add_and_everybody_gets_the_count,
        what_is_not_one_of_the_rooms_events_does_not_run,
        methods_answer_fail_and_are_missing,
        a_sleep_ends_in_a_segment_of_its_own,
        a_sibling_answers_or_fails,
        who_one_is_is_asked_first,
        a_file_that_is_no_room_is_refused_with_its_name_and_why,
        a_failure_has_a_tag_and_a_reason,
        on_error_deals_with_a_failure_or_not,
        a_close_says_how,
        a_rooms_own_checks_stand_at_its_borders,
        the_host_gives_the_room_as_it_is,
        each_reply_comes_once_or_is_told_that_it_will_not,
        a_result_said_before_a_sleep_is_the_result,
        without_identify_one_is_who_the_token_says,
        a_table_is_looked_at_before_it_is_used,
    };
    return rig_run("shard_plugin", tests, sizeof tests / sizeof *tests);
}
