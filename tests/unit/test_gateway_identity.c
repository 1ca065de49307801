/* Who asks, at the gateway's core: tokens are texts that a test reads by a rule of its own, so that
 * clocks, revocations and the cache are seen alone. */
#include "common/token/identity.h"
#include "gateway/revoked_set.h"
#include "gateway/token_cache.h"
#include "gateway_world.h"

#define REVOCATIONS "$stoa:revoked"
#define WALL INT64_C(1700000000000) /* of the world's beginning */

static const struct token_checker *const keys = (const void *)&keys;
static unsigned n_checks;

/* "NAME[,NAME]@SECONDS!SUB": opens these keys, until so long after the beginning, whose it is;
 * rights by its first letter: s subscribe, p publish too. "bad" is none. */
static const char *check(const struct token_checker *tokens, struct slice token, int64_t wall_ms,
                         struct identity **out)
{
    char text[128], *sub, *seconds;
    struct slice names[8];
    size_t count = 0;
    ck_assert_ptr_eq(tokens, keys);
    ck_assert_int_gt(wall_ms, 0);
    n_checks++;
    snprintf(text, sizeof text, "%.*s", (int)token.size, (const char *)token.data);
    if (!(sub = strchr(text, '!')) || !(seconds = strchr(text, '@')))
        return "the signature is wrong";
    *sub++ = *seconds++ = '\0';
    for (char *rest = text + 1, *name; (name = strsep(&rest, ",")) != NULL && count < 8;)
        names[count++] = slice_text(name);
    struct identity who = {.rights = 1u << RIGHT_SUBSCRIBE | (text[0] == 'p') << RIGHT_PUBLISH,
                           .expires_ms = WALL + strtol(seconds, NULL, 10) * 1000,
                           .issued_ms = WALL,
                           .keys = {names, count},
                           .subject = slice_text(sub),
                           .token_id = slice_text(sub),
                           .key_id = slice_text("one"),
                           .claims = slice_text("{}")};
    *out = identity_create(&who);
    return NULL;
}

static void setup(void)
{
    n_checks = 0;
    world_options();
    options.tokens = keys;
    options.token_check = check;
    options.token_max_ttl_ms = 3600 * 1000;
    world_start();
    pass_ms(1000);
}

static void is_error(const struct client *c, unsigned status, const char *tag)
{
    char member[64];
    snprintf(member, sizeof member, "\"tag\":\"%s\"", tag);
    ck_assert_uint_eq(c->status, status);
    ck_assert_ptr_nonnull(strstr(c->body, member));
}

static const char *why_not(void)
{
    const char *why = "";
    return gateway_ready(gateway, &why) ? "" : why;
}

/* ---- the end of a token ---- */

START_TEST(test_ends)
{
    struct client *raw = open_raw(1, "/events?key=k&token=sk@10!a");
    struct client *many = open_v1(2);
    struct client *sse = open_sse(3, "/events?key=k", "Authorization: Bearer sk@10!a");
    say(2, "{\"sub\":\"k\",\"token\":\"sk@10!a\"}");
    say(2, "{\"sub\":\"l\",\"token\":\"sl@100!a\"}");
    rest(many);
    pass_ms(8900);
    ck_assert(!raw->closed && !sse->closed);
    pass_ms(300);
    ck_assert(raw->closed && raw->code == 1008);
    ck_assert_str_eq(raw->reason, "Token expired");
    ck_assert_ptr_nonnull(strstr(rest(sse), "event: end\ndata: {\"tag\":\"TokenExpired\"}\n\n"));
    ck_assert(sse->closed);
    ck_assert_str_eq(frame(many), "{\"unsub\":\"k\",\"code\":1008,\"reason\":\"Token expired\"}");
    ck_assert(!many->closed);
    room_publish("l", "1");
    ck_assert_ptr_nonnull(strstr(frame(many), "\"data\":1"));
    is_error(ask(4, "GET /log?key=k&token=sk@10!a", NULL, NULL), 401, "TokenExpired");
}
END_TEST

/* The clock on the wall decides, wherever it is put. */
START_TEST(test_clock_is_set)
{
    struct client *ahead = open_raw(1, "/events?key=k&token=sk@7200!a");
    now.wall_ms += 7300 * 1000;
    pass_ms(31000);
    ck_assert(ahead->closed && ahead->code == 1008);
    now.wall_ms -= 7300 * 1000;
    struct client *back = open_raw(2, "/events?key=k&token=sk@60!a");
    now.wall_ms -= 100 * 1000;
    pass_ms(60000);
    ck_assert(!back->closed);
    pass_ms(100 * 1000);
    ck_assert(back->closed && back->code == 1008);
}
END_TEST

/* A renewed token ends when it says, and the one before it no more. */
START_TEST(test_renewed)
{
    struct client *c = upgrade(1, "/stoa?token=pk,l@10!a", "Sec-WebSocket-Protocol: stoa.v1");
    ck_assert(c->upgraded);
    say(1, "{\"sub\":\"k\"}");
    say(1, "{\"sub\":\"l\"}");
    rest(c);
    say(1, "{\"token\":\"sk@30!a\",\"ref\":[1]}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"unsub\":\"l\",\"code\":1008,\"reason\":"));
    ck_assert_str_eq(frame(c), "{\"ref\":[1],\"ok\":{\"expires\":1700000030000}}");
    say(1, "{\"pub\":\"k\",\"data\":1,\"ref\":2}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"tag\":\"Forbidden\""));
    say(1, "{\"token\":\"bad\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"error\":{\"tag\":\"Unauthorized\""));
    pass_ms(15000);
    ck_assert(!c->closed);
    pass_ms(15000);
    ck_assert(c->closed && c->code == 1008);
}
END_TEST

/* A subscription that is begun anew without a token keeps its own, and its end. */
START_TEST(test_begun_anew)
{
    struct client *c = open_v1(1);
    say(1, "{\"sub\":\"k\",\"token\":\"sk@10!a\"}");
    say(1, "{\"sub\":\"k\",\"replay\":\"all\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"live\""));
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"resumed\""));
    pass_ms(12000);
    ck_assert_str_eq(frame(c), "{\"unsub\":\"k\",\"code\":1008,\"reason\":\"Token expired\"}");
    say(1, "{\"sub\":\"k\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"tag\":\"Unauthorized\""));
}
END_TEST

/* A hold that outlives its token is answered as one that came too late. */
START_TEST(test_ends_while_held)
{
    shard_down();
    struct client *c = upgrade(1, "/events?key=k&token=sk@3!a", NULL);
    ck_assert_uint_eq(c->responses, 0);
    pass_ms(2500);
    ASSERT_ERROR(c, 401, "TokenExpired");
    ck_assert(!c->upgraded);
}
END_TEST

/* ---- what is known of a token ---- */

START_TEST(test_checked_once)
{
    for (unsigned i = 1; i <= 20; i++)
        ck_assert_uint_eq(ask(i, "GET /log?key=k&token=sk@5!a", NULL, NULL)->status, 200);
    ck_assert_uint_eq(n_checks, 1);
    pass_ms(5000); /* known to be signed, and over */
    is_error(ask(21, "GET /log?key=k&token=sk@5!a", NULL, NULL), 401, "TokenExpired");
    ck_assert_uint_eq(n_checks, 1);
    is_error(ask(22, "GET /log?key=k&token=bad", NULL, NULL), 401, "Unauthorized");
    is_error(ask(23, "GET /log?key=k&token=bad", NULL, NULL), 401, "Unauthorized");
    ck_assert_uint_eq(n_checks, 3);
    static const char *const kept[] = {"one", NULL};
    gateway_retoken(gateway, keys, 3600 * 1000, kept, now);
    (void)ask(24, "GET /log?key=k&token=sk@5!a", NULL, NULL);
    ck_assert_uint_eq(n_checks, 4);
    ck_assert_uint_eq((unsigned)metric("stoa_token_checks_total", ""), 4);
}
END_TEST

START_TEST(test_cache_is_bounded)
{
    const struct identity somebody = {.expires_ms = 1};
    struct identity *who = identity_create(&somebody);
    struct token_cache *c = token_cache_create(SEED, 3, 100000);
    static const char *const texts[] = {"a", "b", "c", "d"};
    for (unsigned i = 0; i < 3; i++)
        token_cache_put(c, slice_text(texts[i]), who);
    ck_assert_ptr_eq(token_cache_get(c, slice_text("a")), who); /* and so b is the oldest */
    token_cache_put(c, slice_text("d"), who);
    ck_assert_ptr_null(token_cache_get(c, slice_text("b")));
    ck_assert_ptr_nonnull(token_cache_get(c, slice_text("a")));
    ck_assert_uint_eq(token_cache_count(c), 3);
    ck_assert_uint_eq(who->refs, 4);
    static char large[30000];
    memset(large, 'x', sizeof large);
    token_cache_put(c, slice_of(large, sizeof large), who);
    ck_assert_uint_eq(token_cache_count(c), 3);
    token_cache_put(c, slice_of(large, sizeof large - 1), who); /* no room for two of them */
    ck_assert_uint_eq(token_cache_count(c), 1);
    token_cache_clear(c);
    ck_assert_uint_eq(token_cache_count(c), 0);
    token_cache_destroy(&c);
    ck_assert_uint_eq(who->refs, 1);
    identity_unref(who);
}
END_TEST

/* ---- revocations ---- */

START_TEST(test_revoked)
{
    struct client *raw = open_raw(1, "/events?key=k&token=sk@900!ann");
    struct client *other = open_raw(2, "/events?key=k&token=sk@900!bob");
    struct client *many = open_v1(3);
    say(3, "{\"sub\":\"k\",\"token\":\"sk@900!ann\"}");
    say(3, "{\"sub\":\"l\",\"token\":\"sl@900!bob\"}");
    rest(many);
    room_publish(REVOCATIONS, "{\"sub\":\"ann\",\"before\":1700000000000}");
    room_publish(REVOCATIONS, "nonsense");
    room_publish(REVOCATIONS, "{\"sub\":7}");
    pass_ms(200);
    ck_assert(raw->closed && raw->code == 1008);
    ck_assert_str_eq(raw->reason, "Token revoked");
    ck_assert(!other->closed && !many->closed);
    ck_assert_str_eq(frame(many), "{\"unsub\":\"k\",\"code\":1008,\"reason\":\"Token revoked\"}");
    ck_assert_str_eq(frame(many), "");
    is_error(ask(4, "GET /log?key=k&token=sk@900!ann", NULL, NULL), 401, "Unauthorized");
    ck_assert_uint_eq(ask(5, "GET /log?key=k&token=sk@900!bob", NULL, NULL)->status, 200);
    shard_down(); /* what was heard stays, even if the shard has lost it */
    room_reborn(REVOCATIONS, HISTORY + 1);
    shard_up(true);
    pass_ms(2000);
    is_error(ask(6, "GET /log?key=k&token=sk@900!ann", NULL, NULL), 401, "Unauthorized");
    room_publish(REVOCATIONS, "{\"jti\":\"bob\"}");
    pass_ms(200);
    ck_assert(other->closed);
}
END_TEST

/* What was said while the shard was away from here. */
START_TEST(test_revoked_meanwhile)
{
    struct client *c = open_raw(1, "/events?key=k&token=sk@900!ann");
    shard_down();
    room_append(REVOCATIONS, "{\"jti\":\"ann\"}");
    pass_ms(1000);
    ck_assert(!c->closed);
    shard_up(false);
    pass_ms(1000);
    ck_assert(c->closed && c->code == 1008);
    is_error(ask(2, "GET /log?key=k&token=sk@900!ann", NULL, NULL), 401, "Unauthorized");
}
END_TEST

START_TEST(test_unknown)
{
    ck_assert_str_eq(why_not(), "");
    struct client *open = open_raw(1, "/events?key=k&token=sk@900!ann");
    shard_down();
    pass_ms(9000);
    ck_assert(ask(2, "GET /presence?key=k&token=sk@900!ann", NULL, NULL)->status != 503);
    pass_ms(2000);
    is_error(ask(3, "GET /log?key=k&token=sk@900!ann", NULL, NULL), 503, "Busy");
    ck_assert_ptr_nonnull(strstr(clients[3].headers, "Retry-After: "));
    is_error(upgrade(4, "/events?key=k&token=sk@900!ann", NULL), 503, "Busy");
    is_error(ask(5, "GET /log?key=k&token=bad", NULL, NULL), 401, "Unauthorized");
    ck_assert(!open->closed);
    ck_assert_str_eq(why_not(), ""); /* it was ready, and balancing it away would help nobody */
    shard_up(false);
    pass_ms(1000);
    ck_assert_uint_eq(ask(6, "GET /log?key=k&token=sk@900!ann", NULL, NULL)->status, 200);
}
END_TEST

static struct revocation revoked(const char *json, struct strbuf *text)
{
    struct revocation r;
    ck_assert_ptr_null(revocation_read(slice_text(json), 5000, text, &r));
    return r;
}

static bool has(const struct revoked_set *set, const char *sub, int64_t issued_ms)
{
    const struct identity who = {.subject = slice_text(sub), .issued_ms = issued_ms};
    return revoked_set_has(set, &who);
}

START_TEST(test_set)
{
    struct strbuf text = {0}, out = {0};
    struct revoked_set *set = revoked_set_create(SEED, 1000);
    struct revocation r = revoked("{\"sub\":\"a\\u0041\"}", &text);
    ck_assert_int_eq(r.before_ms, 5000);
    revocation_put(&out, &r);
    ck_assert_str_eq(strbuf_cstr(&out), "{\"sub\":\"aA\",\"before\":5000}");
    revoked_set_add(set, &r, 100);
    ck_assert(has(set, "aA", 5000) && has(set, "aA", 0) && !has(set, "aA", 5001));
    ck_assert(!has(set, "a", 0));
    r = revoked("{\"sub\":\"aA\",\"before\":10}", &text); /* an earlier time takes nothing back */
    revoked_set_add(set, &r, 200);
    ck_assert(has(set, "aA", 5000));
    ck_assert_uint_eq(revoked_set_count(set), 1);
    r = revoked("{\"kid\":\"one\"}", &text);
    revoked_set_add(set, &r, 300);
    const struct identity by_kid = {.key_id = slice_text("one"), .issued_ms = 4000};
    const struct identity nameless = {.issued_ms = 4000};
    ck_assert(revoked_set_has(set, &by_kid) && !revoked_set_has(set, &nameless));
    revoked_set_expire(set, 200 + 1000 + 3600 * 1000 - 1);
    ck_assert_uint_eq(revoked_set_count(set), 2);
    revoked_set_expire(set, 200 + 1000 + 3600 * 1000);
    ck_assert_uint_eq(revoked_set_count(set), 1);
    revoked_set_destroy(&set);
    strbuf_free(&text);
    strbuf_free(&out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gateway identity");
    TCase *t = tcase_create("tokens");
    tcase_add_checked_fixture(t, setup, world_teardown);
    tcase_add_test(t, test_ends);
    tcase_add_test(t, test_clock_is_set);
    tcase_add_test(t, test_renewed);
    tcase_add_test(t, test_begun_anew);
    tcase_add_test(t, test_ends_while_held);
    tcase_add_test(t, test_checked_once);
    tcase_add_test(t, test_revoked);
    tcase_add_test(t, test_revoked_meanwhile);
    tcase_add_test(t, test_unknown);
    suite_add_tcase(s, t);
    TCase *parts = tcase_create("parts");
    tcase_add_test(parts, test_cache_is_bounded);
    tcase_add_test(parts, test_set);
    suite_add_tcase(s, parts);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
