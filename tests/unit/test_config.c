/* The configuration: what is read, what is refused and in which words, who wins, what is shown. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/limits.h"

static char directory[64];

static void enter(void)
{
    snprintf(directory, sizeof directory, "/tmp/stoa-config-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
}

static void leave(void)
{
    static const char *const files[] = {"stoa.yaml", "key",     "sub/stoa.yaml",
                                        "sub/key",   "sub/pub", "after.yaml",
                                        "pub",       "hs",      "binary"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(files[i]);
    rmdir("sub");
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void load(struct config *c, const char *path, const char *const *overrides)
{
    struct strbuf why = {0};
    int code = config_load(c, path, overrides, &why);
    ck_assert_msg(code == ERR_OK, "%s", strbuf_cstr(&why));
    ck_assert_uint_eq(why.size, 0);
    strbuf_free(&why);
}

START_TEST(test_defaults)
{
    struct config c;
    load(&c, NULL, NULL);
    ck_assert_str_eq(c.cluster.name, "stoa");
    ck_assert_uint_eq(c.cluster.routers.count, 1);
    ck_assert_str_eq(c.cluster.routers.at[0], "127.0.0.1:7100");
    ck_assert_str_eq(c.gateway.listen, "127.0.0.1:8080");
    ck_assert(!c.gateway.origins_set);
    ck_assert_uint_eq(c.gateway.limits.message, PAYLOAD_MAX_BYTES);
    ck_assert_ptr_null(c.auth.mode);
    ck_assert_ptr_null(c.monitor.listen);
    ck_assert_uint_eq(c.n_types, 1);
    ck_assert_str_eq(c.types[0].name, "events");
    ck_assert_int_eq(c.types[0].age_ms, 3600000);
    ck_assert_uint_eq(c.types[0].count, 10000);
    ck_assert_uint_eq(c.types[0].bytes, 16 * MIB);
    config_free(&c);
}
END_TEST

START_TEST(test_whole_file)
{
    struct config c;
    put("stoa.yaml",
        "# all of it\n"
        "cluster: { name: prod-eu, seed: 7, routers: [router-0:7100, \"tcp://router-1:7100\"],\n"
        "  shards: [shard-1:7200, ipc:///run/s1] }\n"
        "router: { index: 1, listen: 0.0.0.0:7100 }\n"
        "shard: { data_dir: /data, sync: full, disk_reserve: 2GiB, slots: 0-99 }\n"
        "gateway: { listen: 0.0.0.0:8080, origins: [\"https://app.example.com\"], page: p.html,\n"
        "  trusted_proxies: [10.0.0.0/8],\n"
        "  limits: { message: 100KiB, sockets: 5, sockets_per_ip: 2, connection_rate: 30/m } }\n"
        "monitor: { listen: 0.0.0.0:8090 }\n"
        "auth: { mode: none }\n"
        "types:\n"
        "  chat: { retention: { age: 7d, count: 500 }, rate: { connection: 20/s, room: 90/m } }\n"
        "  events: { retention: { bytes: 1MiB } }\n"
        "routes: [ { path: \"/p/{id}\", key: \"{id}\", replay: all } ]\n"
        "log: { format: json, level: debug }\n");
    load(&c, "stoa.yaml", NULL);
    ck_assert_str_eq(c.cluster.name, "prod-eu");
    ck_assert_uint_eq(config_slot_seed(&c), 7);
    ck_assert_uint_eq(c.cluster.routers.count, 2);
    ck_assert_ptr_null(c.cluster.routers.at[2]);
    ck_assert_str_eq(c.cluster.shards.at[1], "ipc:///run/s1");
    ck_assert_uint_eq(c.router.index, 1);
    ck_assert_uint_eq(c.shard.disk_reserve, UINT64_C(2) << 30);
    ck_assert_str_eq(c.shard.data_dir, "/data");
    ck_assert(c.gateway.origins_set);
    ck_assert_str_eq(c.gateway.page, "p.html");
    ck_assert_uint_eq(c.gateway.limits.message, 100 * KIB);
    ck_assert_double_eq(c.gateway.limits.connection_rate, 0.5);
    ck_assert_str_eq(c.auth.mode, "none");
    ck_assert_uint_eq(c.n_types, 2);
    ck_assert_uint_eq(c.types[0].bytes, MIB);
    ck_assert_str_eq(c.types[1].name, "chat");
    ck_assert_int_eq(c.types[1].age_ms, INT64_C(7) * 24 * 3600 * 1000);
    ck_assert_uint_eq(c.types[1].bytes, 16 * MIB);
    ck_assert_double_eq(c.types[1].rate_connection, 20);
    ck_assert_double_eq(c.types[1].rate_room, 1.5);
    ck_assert_str_eq(c.types[1].rate_over, "close");
    ck_assert_double_eq(c.types[0].rate_room, 0);
    ck_assert_uint_eq(c.n_routes, 1);
    ck_assert_str_eq(c.routes[0].dialect, "raw");
    ck_assert_str_eq(c.log.level, "debug");
    config_free(&c);
}
END_TEST

/* The key pairs of zmq_curve(7). */
#define SECRET "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
#define PUBLIC "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define OTHER_SECRET "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
#define OTHER_PUBLIC "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define NOT_Z85 "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh~"
#define TOO_LARGE "########################################" /* five of them exceed 32 bits */

#define PEERS(list) "cluster:\n  curve: { secret: \"" SECRET "\" }\n  peers: " list "\n"

START_TEST(test_one_key_is_enough)
{
    struct config c;
    struct strbuf shown = {0};
    put("stoa.yaml", "cluster: { curve: { secret: \"" SECRET "\", required: true } }\n");
    load(&c, "stoa.yaml", NULL);
    ck_assert_str_eq(c.cluster.curve.public_key, PUBLIC);
    ck_assert_str_eq(c.cluster.curve.server_key, PUBLIC);
    config_print(&c, false, &shown);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "cluster.curve.public: " PUBLIC));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "# cluster.curve.secret\n"));
    ck_assert_ptr_null(strstr(strbuf_cstr(&shown), SECRET));
    strbuf_free(&shown);
    config_free(&c);
    put("stoa.yaml", "cluster: { curve: { secret: \"" SECRET "\", server: \"" OTHER_PUBLIC
                     "\", allowed: [\"" OTHER_PUBLIC "\"] } }\n");
    load(&c, "stoa.yaml", NULL);
    ck_assert_str_eq(c.cluster.curve.public_key, PUBLIC);
    ck_assert_str_eq(c.cluster.curve.server_key, OTHER_PUBLIC);
    ck_assert_uint_eq(c.cluster.curve.allowed.count, 1);
    config_free(&c);
    const char *const flags[] = {"cluster.curve.secret=no key", NULL};
    struct strbuf why = {0};
    ck_assert_int_eq(config_load(&c, NULL, flags, &why), ERR_INVALID);
    ck_assert_str_eq(strbuf_cstr(&why),
                     "flag: cluster.curve.secret: is not a CURVE key: 6 characters where a key has "
                     "40; stoa keygen makes keys");
    strbuf_free(&why);
    config_free(&c);
}
END_TEST

START_TEST(test_peers)
{
    struct config c, after;
    struct strbuf text = {0};
    put("stoa.yaml", PEERS("\n    - { key: \"" OTHER_PUBLIC "\", role: publisher, name: uploads }\n"
                           "    - { role: router, key_file: pub }"));
    put("pub", PUBLIC "\n");
    load(&c, "stoa.yaml", NULL);
    ck_assert_uint_eq(c.cluster.n_peers, 2);
    ck_assert_str_eq(c.cluster.peers[0].key, OTHER_PUBLIC);
    ck_assert_str_eq(c.cluster.peers[0].role, "publisher");
    ck_assert_str_eq(c.cluster.peers[0].name, "uploads");
    ck_assert_str_eq(c.cluster.peers[1].key, PUBLIC);
    ck_assert_str_eq(c.cluster.peers[1].role, "router");
    ck_assert_ptr_null(c.cluster.peers[1].name);
    config_print(&c, false, &text);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&text), "cluster.peers[0].name: uploads"));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&text), "# stoa.yaml:4\n"));
    put("stoa.yaml", PEERS("[ { key: \"" OTHER_PUBLIC "\", role: gateway, name: uploads } ]"));
    load(&after, "stoa.yaml", NULL);
    strbuf_reset(&text);
    config_diff(&c, &after, &text);
    ck_assert_str_eq(strbuf_cstr(&text), "cluster.peers[0].role (needs a restart)\n"
                                         "cluster.peers[1].key (needs a restart)\n"
                                         "cluster.peers[1].role (needs a restart)\n"
                                         "cluster.peers[1].name (needs a restart)\n");
    strbuf_free(&text);
    config_free(&c);
    config_free(&after);
}
END_TEST

START_TEST(test_auth)
{
    struct config c, after;
    struct strbuf text = {0};
    put("hs", "secret of 32 bytes, or even more\n");
    put("stoa.yaml",
        "auth:\n  mode: token\n  iss: https://id.example\n  aud: stoa\n  max_ttl: 1d\n  keys:\n"
        "    - { kid: \"2026-11\", alg: HS256, secret_file: hs }\n"
        "    - { alg: ES256, public_key: \"-----BEGIN\" }\n");
    load(&c, "stoa.yaml", NULL);
    ck_assert_str_eq(c.auth.mode, "token");
    ck_assert_str_eq(c.auth.iss, "https://id.example");
    ck_assert_str_eq(c.auth.aud, "stoa");
    ck_assert_int_eq(c.auth.max_ttl_ms, 24 * 3600 * 1000);
    ck_assert_uint_eq(c.auth.n_keys, 2);
    ck_assert_str_eq(c.auth.keys[0].kid, "2026-11");
    ck_assert_str_eq(c.auth.keys[0].secret, "secret of 32 bytes, or even more");
    ck_assert_ptr_null(c.auth.keys[1].kid);
    ck_assert_str_eq(c.auth.keys[1].alg, "ES256");
    for (int json = 0; json < 2; json++) {
        strbuf_reset(&text);
        config_print(&c, json, &text);
        ck_assert_ptr_nonnull(strstr(strbuf_cstr(&text), "auth.keys[0].kid"));
        ck_assert_ptr_null(strstr(strbuf_cstr(&text), "secret of"));
        ck_assert_ptr_null(strstr(strbuf_cstr(&text), "BEGIN"));
    }
    put("hs", "another secret, of 32 bytes too.");
    load(&after, "stoa.yaml", NULL);
    strbuf_reset(&text);
    config_diff(&c, &after, &text);
    ck_assert_str_eq(strbuf_cstr(&text), "auth.keys[0].secret\n");
    strbuf_free(&text);
    config_free(&c);
    config_free(&after);
}
END_TEST

/* What is cut off at a NUL would be a short secret. */
START_TEST(test_a_secret_is_text)
{
    struct config c;
    struct strbuf why = {0};
    FILE *file = fopen("binary", "w");
    ck_assert_uint_eq(fwrite("ab\0cd", 1, 5, file), 5);
    ck_assert_int_eq(fclose(file), 0);
    put("stoa.yaml", "auth: { mode: token, keys: [ { alg: HS256, secret_file: binary } ] }\n");
    ck_assert_int_eq(config_load(&c, "stoa.yaml", NULL, &why), ERR_INVALID);
    ck_assert_str_eq(strbuf_cstr(&why), "stoa.yaml:1: auth.keys[0].secret_file: ./binary: holds a "
                                        "NUL; a secret is text (base64, say)");
    strbuf_free(&why);
    config_free(&c);
}
END_TEST

static const struct {
    const char *text;
    const char *why;
} refusals[] = {
    {"\n\ntypes:\n  chat:\n    retension: { age: 1h }\n",
     "stoa.yaml:5: types.chat.retension: unknown field, did you mean \"retention\"?"},
    {"gatway: { listen: x }\n", "stoa.yaml:1: gatway: unknown field, did you mean \"gateway\"?"},
    {"zzzz: 1\n", "stoa.yaml:1: zzzz: unknown field"},
    {"gateway.listen: x\n", "stoa.yaml:1: gateway.listen: unknown field"},
    {"gateway:\n  limits:\n    sockets: many\n",
     "stoa.yaml:3: gateway.limits.sockets: \"many\" is not a whole number"},
    {"gateway: { limits: { message: 2MiB } }\n",
     "stoa.yaml:1: gateway.limits.message: \"2MiB\" is out of range, 1B to 1MiB"},
    {"gateway: { limits: { message: 5 apples } }\n",
     "stoa.yaml:1: gateway.limits.message: \"5 apples\" is not a size like 512KiB or 64MiB"},
    {"types: { a: { retention: { age: soon } } }\n",
     "stoa.yaml:1: types.a.retention.age: \"soon\" is not a duration like 250ms, 30s, 5m, 1h or "
     "7d"},
    {"types: { \"a:b\": { } }\n",
     "stoa.yaml:1: types.a:b: a type's name is made of letters, digits, "
     "'_' and '-', at most 64"},
    {"gateway: { limits: { connection_rate: fast } }\n",
     "stoa.yaml:1: gateway.limits.connection_rate: \"fast\" is not a rate like 50/s"},
    {"cluster: { curve: { required: yes } }\n",
     "stoa.yaml:1: cluster.curve.required: \"yes\" is not true or false"},
    {"log: { level: loud }\n",
     "stoa.yaml:1: log.level: \"loud\" is not one of its values: debug, info, warn, error"},
    {"log: { level: info, level: warn }\n", "stoa.yaml:1: log.level: given twice"},
    {"cluster: { curve: { secret: \"" SECRET "\", secret_file: b } }\n",
     "stoa.yaml:1: cluster.curve.secret_file: given twice"},
    {"cluster: { curve: { secret: short } }\n",
     "stoa.yaml:1: cluster.curve.secret: is not a CURVE key: 5 characters where a key has 40; stoa "
     "keygen makes keys"},
    {"cluster: { curve: { secret: \"" NOT_Z85 "\" } }\n",
     "stoa.yaml:1: cluster.curve.secret: is not a CURVE key: 40 characters, but not Z85; stoa "
     "keygen makes keys"},
    {"cluster: { curve: { secret: \"" SECRET "\", server: \"" TOO_LARGE "\" } }\n",
     "stoa.yaml:1: cluster.curve.server: is not a CURVE key: 40 characters, but not Z85; stoa "
     "keygen makes keys"},
    {"cluster:\n  curve:\n    secret: \"" SECRET "\"\n    allowed: [\"" PUBLIC "\", x]\n",
     "stoa.yaml:4: cluster.curve.allowed: is not a CURVE key: 1 characters where a key has 40; "
     "stoa keygen makes keys"},
    {"cluster: { curve: { secret: \"" SECRET "\", public: \"" OTHER_PUBLIC "\" } }\n",
     "stoa.yaml:1: cluster.curve.public: is not the public key of cluster.curve.secret; leave it "
     "out, it is derived"},
    {"cluster: { curve: { server: \"" PUBLIC "\" } }\n",
     "configuration: cluster.curve: has keys, but none of this process: give secret_file (stoa "
     "keygen makes one)"},
    {"cluster: { curve: { secret_key: a } }\n",
     "stoa.yaml:1: cluster.curve.secret_key: unknown field, did you mean \"secret\"?"},
    {PEERS("{ a: publisher }"),
     "stoa.yaml:3: cluster.peers: must be a list of peers: - { key: ..., role: ... }"},
    {PEERS("[publisher]"),
     "stoa.yaml:3: cluster.peers[0]: must be a peer: { key: ..., role: ... }"},
    {PEERS("[ { key: x, role: publisher } ]"),
     "stoa.yaml:3: cluster.peers[0].key: is not a CURVE key: 1 characters where a key has 40; stoa "
     "keygen makes keys"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\", role: boss } ]"),
     "stoa.yaml:3: cluster.peers[0].role: \"boss\" is not one of its values: publisher, gateway, "
     "router, shard"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\", role: admin } ]"),
     "stoa.yaml:3: cluster.peers[0].role: \"admin\" comes in a later version; for now it can be "
     "publisher, gateway, router, shard"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\", rolle: shard } ]"),
     "stoa.yaml:3: cluster.peers[0].rolle: unknown field, did you mean \"role\"?"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\" }, { role: shard } ]"),
     "configuration: cluster.peers[0]: needs a key and a role\n"
     "configuration: cluster.peers[1]: needs a key and a role"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\", role: shard }, { key: \"" OTHER_PUBLIC
           "\", role: shard, name: a }, { key: \"" OTHER_PUBLIC "\", role: shard } ]"),
     "configuration: cluster.peers[2]: says the same as cluster.peers[0]"},
    {PEERS("[ { key: \"" OTHER_PUBLIC "\", role: shard, name: \"\" } ]"),
     "configuration: cluster.peers[0]: a name has 1 to 64 bytes"},
    {"cluster:\n  curve: { secret: \"" SECRET "\", allowed: [\"" PUBLIC
     "\"] }\n  peers: [ { key: \"" PUBLIC "\", role: shard } ]\n",
     "stoa.yaml:2: cluster.curve.allowed: lists keys that may be every role, and cluster.peers "
     "says "
     "which may be which: move them there"},
    {"cluster: { peers: [ { key: \"" PUBLIC "\", role: shard } ] }\n",
     "configuration: cluster.peers: has keys, but none of this process: give "
     "cluster.curve.secret_file (stoa keygen makes one)"},
    {"gateway: 5\n", "stoa.yaml:1: gateway: has fields of its own: write them indented below it"},
    {"gateway: { origins: https://a }\n",
     "stoa.yaml:1: gateway.origins: must be a list, like [a, b]"},
    {"gateway: { origins: [[a]] }\n", "stoa.yaml:1: gateway.origins: an entry is not a text"},
    {"gateway: { listen: { a: b } }\n", "stoa.yaml:1: gateway.listen: must be a single value"},
    {"gateway:\n  listen:\n",
     "stoa.yaml:2: gateway.listen: has no value; leave the line out for the default"},
    {"cluster: { shards: [nowhere] }\n",
     "stoa.yaml:1: cluster.shards: \"nowhere\" is no endpoint; write host:port or ipc:///path"},
    {"cluster: { shards: [\"a:1\", \"a:1\"] }\n",
     "stoa.yaml:1: cluster.shards: a:1 stands there twice"},
    {"auth: { mode: token }\n",
     "stoa.yaml:1: auth.mode: is token, but there is no key to check tokens with: add keys: [ { "
     "kid: \"1\", alg: HS256, secret_file: FILE } ] to auth"},
    {"auth: { mode: tokens }\n",
     "stoa.yaml:1: auth.mode: \"tokens\" is not one of its values: none, token"},
    {"auth: { keys: [ { alg: HS256, secret: a } ] }\n",
     "configuration: auth.keys: are given, but auth.mode is not: add mode: token (or none)"},
    {"auth: { mode: token, keys: { kid: a } }\n",
     "stoa.yaml:1: auth.keys: must be a list of keys: - { kid: ..., alg: ..., secret_file: ... }"},
    {"auth: { mode: token, keys: [a] }\n",
     "stoa.yaml:1: auth.keys[0]: must be a key: { kid: ..., alg: ..., secret_file: ... }"},
    {"auth:\n  mode: token\n  keys:\n    - { kid: a, alg: HS512, secret: a }\n",
     "stoa.yaml:4: auth.keys[0].alg: \"HS512\" is not one of its values: HS256, RS256, ES256"},
    {"auth:\n  mode: token\n  keys:\n    - { kid: a, secret: a }\n",
     "stoa.yaml:4: auth.keys[0]: needs alg: HS256, RS256 or ES256"},
    {"auth: { mode: token, keys: [ { alg: HS256 } ] }\n",
     "stoa.yaml:1: auth.keys[0]: needs secret_file (or secret)"},
    {"auth: { mode: token, keys: [ { alg: RS256, secret: a } ] }\n",
     "stoa.yaml:1: auth.keys[0]: has a secret, which only HS256 knows: give public_key_file"},
    {"auth: { mode: token, keys: [ { alg: HS256, secret: a, public_key: b } ] }\n",
     "stoa.yaml:1: auth.keys[0]: has a public_key, which HS256 does not know: give secret_file"},
    {"auth: { mode: token, keys: [ { alg: ES256 } ] }\n",
     "stoa.yaml:1: auth.keys[0]: needs public_key_file (or public_key)"},
    {"auth: { mode: token, keys: [ { kid: '', alg: HS256, secret: a } ] }\n",
     "stoa.yaml:1: auth.keys[0]: a kid has 1 to 256 bytes; leave it out if tokens have none"},
    {"auth: { mode: token, keys: [ { kid: a, alg: HS256, secret: a },\n"
     "  { kid: a, alg: HS256, secret: b } ] }\n",
     "stoa.yaml:2: auth.keys[1]: has the kid of auth.keys[0]: tokens would not say which"},
    {"auth: { mode: token, keys: [ { alg: HS256, secret_file: none.txt } ] }\n",
     "stoa.yaml:1: auth.keys[0].secret_file: ./none.txt: No such file or directory"},
    {"auth: { max_ttl: 0 }\n", "stoa.yaml:1: auth.max_ttl: \"0\" is out of range, 1s to 3650d"},
    {"shard: { sync: relaxed }\n", "stoa.yaml:1: shard.sync: \"relaxed\" comes in a later version; "
                                   "for now it can be full"},
    {"types: { chat: { handler: rooms/chat.py } }\n",
     "stoa.yaml:1: types.chat.handler: \"rooms/chat.py\" is no handler; write events, or a "
     "file.lua "
     "or file.so"},
    {"types: { chat: { handler: .lua } }\n",
     "stoa.yaml:1: types.chat.handler: \".lua\" is no handler; write events, or a file.lua or "
     "file.so"},
    {"types: { events: { handler: a.lua } }\n",
     "stoa.yaml:1: types.events.handler: keys without a type are of this one and run no code: "
     "declare a type of another name"},
    {"types: { chat: { on_duplicate: kick, max_connections: 0, max_connection_state: 17KiB } }\n",
     "stoa.yaml:1: types.chat.on_duplicate: \"kick\" is not one of its values: allow, replace, "
     "reject\n"
     "stoa.yaml:1: types.chat.max_connections: \"0\" is out of range, 1 to 32768\n"
     "stoa.yaml:1: types.chat.max_connection_state: \"17KiB\" is out of range, 1B to 16KiB"},
    {"types: { chat: { max_connections: 32769 } }\n",
     "stoa.yaml:1: types.chat.max_connections: \"32769\" is out of range, 1 to 32768"},
    {"types: { chat: { headers: [\"x y\"] } }\n",
     "stoa.yaml:1: types.chat.headers: \"x y\" is no header's name"},
    {"types: { chat: { headers: [a, a] } }\n",
     "stoa.yaml:1: types.chat.headers: a stands there twice"},
    {"types: { chat: { rate: { room: 1e7/s, connection: -1/s, over: block } } }\n",
     "stoa.yaml:1: types.chat.rate.room: \"1e7/s\" is out of range, 0/s to 1000000/s\n"
     "stoa.yaml:1: types.chat.rate.connection: \"-1/s\" is not a rate like 50/s\n"
     "stoa.yaml:1: types.chat.rate.over: \"block\" is not one of its values: close, drop"},
    {"types: { chat: { rate: 5/s } }\n",
     "stoa.yaml:1: types.chat.rate: has fields of its own: write them indented below it"},
    {"types: { chat: { schemas: { event: e.json, state: s.json } } }\n",
     "stoa.yaml:1: types.chat.schemas.state: a type without a handler keeps payloads of any bytes "
     "as they are and has no schemas\n"
     "stoa.yaml:1: types.chat.schemas.event: a type without a handler keeps payloads of any bytes "
     "as they are and has no schemas"},
    {"types: { chat: { handler: a.lua, schemas: { events: e.json } } }\n",
     "stoa.yaml:1: types.chat.schemas.events: unknown field, did you mean \"event\"?"},
    {"types:\n  chat: { presence: true }\n  b: { handler: events, presence: true }\n",
     "stoa.yaml:2: types.chat.presence: needs a handler: a member is a connection id, and only a "
     "handler's identify says whose connection it is\n"
     "stoa.yaml:3: types.b.presence: needs a handler: a member is a connection id, and only a "
     "handler's identify says whose connection it is"},
    {"types: { chat: { handler: c.lua, presence: maybe } }\n",
     "stoa.yaml:1: types.chat.presence: \"maybe\" is not true or false"},
    {"routes:\n  - { path: /iterator, key: k, dialect: orcp }\n",
     "stoa.yaml:2: routes[0].dialect: \"orcp\" is not one of its values: raw, uploadista, orpc"},
    {"routes:\n  - { key: k }\n",
     "stoa.yaml:2: routes[0]: needs a path that begins with '/' and a key"},
    {"routes:\n  - { path: \"/a/{b}\", key: \"{b}\" }\n  - { path: \"/a/{b}\", key: \"x:{c}\" }\n",
     "stoa.yaml:3: routes[1]: the key has {c}, the path has not; name a part of it"},
    {"routes:\n  - path: \"/a/x{b}\"\n    key: k\n    replay: some\n",
     "stoa.yaml:2: routes[0]: a {name} stands for a whole part of the path\n"
     "stoa.yaml:2: routes[0]: replay is \"some\"; it can be all, none or a number"},
    {"routes: { path: /x }\n",
     "stoa.yaml:1: routes: must be a list of routes: - { path: ..., key: ... }"},
    {"a: &x 1\nb: *x\n", "stoa.yaml:1: a: unknown field\nstoa.yaml:2: b: YAML aliases are not "
                         "understood here"},
    {"- 1\n", "stoa.yaml:1: the file must hold fields, like \"gateway:\""},
    {"log: { level: info\n", "stoa.yaml:2: did not find expected ',' or '}'"},
    {"log: { level: info }\n---\nlog: { level: info }\n",
     "stoa.yaml:2: a second document; there can be one"},
    {"{a: 1}: 2\nlog: { level: loud }\n",
     "stoa.yaml:1: a field's name must be a text\n"
     "stoa.yaml:2: log.level: \"loud\" is not one of its values: debug, info, warn, error"},
    {"gateway: { listen: \"a\\0b\" }\n", "stoa.yaml:1: gateway.listen: holds a NUL"},
    {"cluster: { curve: { secret_file: nokey } }\n",
     "stoa.yaml:1: cluster.curve.secret_file: ./nokey: No such file or directory"},
};

START_TEST(test_refusals)
{
    struct config c;
    struct strbuf why = {0};
    put("stoa.yaml", refusals[_i].text);
    ck_assert_int_eq(config_load(&c, "stoa.yaml", NULL, &why), ERR_INVALID);
    const char *told = strbuf_cstr(&why);
    const char *wanted = refusals[_i].why;
    /* libyaml words its own errors: only place and beginning are ours to hold. */
    if (strstr(wanted, "did not find") != NULL)
        ck_assert_msg(strncmp(told, wanted, 30) == 0, "%s", told);
    else
        ck_assert_str_eq(told, wanted);
    config_free(&c);
    strbuf_free(&why);
}
END_TEST

START_TEST(test_empty_sections_are_fine)
{
    struct config c;
    put("stoa.yaml", "gateway:\n  limits:\ntypes:\nroutes:\n");
    load(&c, "stoa.yaml", NULL);
    config_free(&c);
    put("stoa.yaml", "");
    load(&c, "stoa.yaml", NULL);
    config_free(&c);
}
END_TEST

START_TEST(test_missing_file)
{
    struct config c;
    struct strbuf why = {0};
    ck_assert_int_eq(config_load(&c, "absent.yaml", NULL, &why), ERR_IO);
    ck_assert_str_eq(strbuf_cstr(&why), "absent.yaml: No such file or directory");
    config_free(&c);
    strbuf_reset(&why);
    setenv("STOA_CONFIG", "other.yaml", 1);
    ck_assert_int_eq(config_load(&c, NULL, NULL, &why), ERR_IO);
    config_free(&c);
    strbuf_free(&why);
}
END_TEST

START_TEST(test_who_wins)
{
    struct config c;
    put("stoa.yaml", "gateway: { listen: file:1 }\nlog: { level: warn }\nshard: { index: 1 }\n");
    setenv("STOA_GATEWAY_LISTEN", "variable:1", 1);
    setenv("STOA_LOG_LEVEL", "error", 1);
    setenv("STOA_GATEWAY_LIMITS_SOCKETS_PER_IP", "9", 1);
    setenv("STOA_SHARD_DATA_DIR", "here", 1);
    setenv("STOA_MONITOR_LISTEN", "", 1);
    const char *const flags[] = {"gateway.listen=flag:1", "cluster.shards=a:1,b:2", NULL};
    load(&c, NULL, flags); /* ./stoa.yaml */
    ck_assert_str_eq(c.gateway.listen, "flag:1");
    ck_assert_str_eq(c.log.level, "error");
    ck_assert_uint_eq(c.gateway.limits.sockets_per_ip, 9);
    ck_assert_uint_eq(c.shard.index, 1);
    ck_assert_str_eq(c.shard.data_dir, "here");
    ck_assert_uint_eq(c.cluster.shards.count, 2);
    ck_assert_ptr_null(c.monitor.listen);
    struct strbuf shown = {0};
    config_print(&c, true, &shown);
    json_t *all = json_loadb((const char *)shown.data, shown.size, 0, NULL);
    ck_assert_ptr_nonnull(all);
    static const char *const origins[][2] = {{"gateway.listen", "flag"},
                                             {"log.level", "STOA_LOG_LEVEL"},
                                             {"shard.index", "stoa.yaml:3"},
                                             {"log.format", "default"}};
    for (size_t i = 0; i < sizeof origins / sizeof *origins; i++) {
        json_t *field = json_object_get(all, origins[i][0]);
        ck_assert_str_eq(json_string_value(json_object_get(field, "from")), origins[i][1]);
    }
    json_decref(all);
    strbuf_free(&shown);
    config_free(&c);
}
END_TEST

START_TEST(test_bad_variables_and_flags)
{
    struct config c;
    struct strbuf why = {0};
    setenv("STOA_LOG_LEVEL", "loud", 1);
    setenv("STOA_GATEWAY_LIMITS_MESSAGE", "x", 1);
    const char *const flags[] = {"shard.index=minus", "no.such=1", NULL};
    ck_assert_int_eq(config_load(&c, NULL, flags, &why), ERR_INVALID);
    ck_assert_str_eq(
        strbuf_cstr(&why),
        "STOA_GATEWAY_LIMITS_MESSAGE: gateway.limits.message: \"x\" is not a size like 512KiB or "
        "64MiB\n"
        "STOA_LOG_LEVEL: log.level: \"loud\" is not one of its values: debug, info, warn, error\n"
        "flag: shard.index: \"minus\" is not a whole number\n"
        "flag: no.such: unknown field");
    config_free(&c);
    strbuf_free(&why);
}
END_TEST

START_TEST(test_paths_and_secrets_are_relative_to_the_file)
{
    struct config c;
    ck_assert_int_eq(mkdir("sub", 0700), 0);
    put("sub/key", "  " SECRET "\n\n");
    put("sub/stoa.yaml", "gateway: { page: www/p.html }\nshard: { data_dir: d }\n"
                         "cluster: { curve: { secret_file: key, public_file: pub } }\n");
    put("sub/pub", PUBLIC "\n");
    load(&c, "sub/stoa.yaml", NULL);
    ck_assert_str_eq(c.gateway.page, "sub/www/p.html");
    ck_assert_str_eq(c.shard.data_dir, "sub/d");
    ck_assert_str_eq(c.cluster.curve.secret_key, SECRET);
    ck_assert_str_eq(c.cluster.curve.public_key, PUBLIC);
    for (int json = 0; json < 2; json++) {
        struct strbuf shown = {0};
        config_print(&c, json, &shown);
        ck_assert_ptr_null(strstr(strbuf_cstr(&shown), SECRET));
        ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "***"));
        strbuf_free(&shown);
    }
    config_free(&c);
    put("key", OTHER_SECRET);
    put("sub/stoa.yaml", "cluster: { curve: { secret_file: key } }\n");
    setenv("STOA_CLUSTER_CURVE_SECRET_FILE", "key", 1);
    load(&c, "sub/stoa.yaml", NULL);
    ck_assert_str_eq(c.cluster.curve.secret_key, OTHER_SECRET);
    ck_assert_str_eq(c.cluster.curve.public_key, OTHER_PUBLIC);
    config_free(&c);
}
END_TEST

START_TEST(test_default_text_reads_back)
{
    struct config plain, read;
    struct strbuf text = {0}, changed = {0};
    config_print_default(&text);
    load(&plain, NULL, NULL);
    put("stoa.yaml", strbuf_cstr(&text));
    load(&read, "stoa.yaml", NULL);
    config_diff(&plain, &read, &changed);
    ck_assert_str_eq(strbuf_cstr(&changed), "");
    strbuf_free(&text);
    strbuf_free(&changed);
    config_free(&plain);
    config_free(&read);
}
END_TEST

START_TEST(test_diff)
{
    struct config before, after;
    struct strbuf changed = {0};
    put("stoa.yaml", "gateway: { listen: a:1, origins: [x] }\ntypes: { chat: }\n"
                     "cluster: { curve: { secret: \"" SECRET "\" } }\n");
    put("after.yaml", "gateway: { listen: b:1, origins: [x, y] }\n"
                      "types: { events: { retention: { age: 2h } } }\n"
                      "cluster: { curve: { secret: \"" OTHER_SECRET "\" } }\n");
    load(&before, "stoa.yaml", NULL);
    load(&after, "after.yaml", NULL);
    config_diff(&before, &after, &changed);
    ck_assert_str_eq(strbuf_cstr(&changed), "cluster.curve.secret (needs a restart)\n"
                                            "cluster.curve.public (needs a restart)\n"
                                            "cluster.curve.server (needs a restart)\n"
                                            "gateway.listen (needs a restart)\n"
                                            "gateway.origins\n"
                                            "types.events.retention.age\n"
                                            "types.chat.retention.age\n"
                                            "types.chat.retention.count\n"
                                            "types.chat.retention.bytes\n"
                                            "types.chat.handler\n"
                                            "types.chat.on_duplicate\n"
                                            "types.chat.max_connections\n"
                                            "types.chat.max_connection_state\n"
                                            "types.chat.headers\n"
                                            "types.chat.presence\n"
                                            "types.chat.rate.connection\n"
                                            "types.chat.rate.room\n"
                                            "types.chat.rate.over\n"
                                            "types.chat.schemas.state\n"
                                            "types.chat.schemas.connection\n"
                                            "types.chat.schemas.event\n"
                                            "types.chat.schemas.broadcast\n");
    strbuf_free(&changed);
    config_free(&before);
    config_free(&after);
}
END_TEST

START_TEST(test_room_types)
{
    struct config before, after;
    struct strbuf shown = {0};
    ck_assert_int_eq(mkdir("sub", 0700), 0);
    put("sub/stoa.yaml", "types:\n"
                         "  chat: { handler: rooms/chat.lua, on_duplicate: replace,\n"
                         "    max_connections: 7, max_connection_state: 4KiB, headers: [X-Team],\n"
                         "    schemas: { event: schemas/event.json, state: /opt/state.json } }\n"
                         "  counter: { handler: /opt/libcounter.so }\n"
                         "  plain: { handler: events }\n");
    load(&before, "sub/stoa.yaml", NULL);
    ck_assert_uint_eq(before.n_types, 4);
    const struct config_type *chat = &before.types[1];
    ck_assert(config_type_has_handler(chat));
    ck_assert_str_eq(chat->handler, "sub/rooms/chat.lua");
    ck_assert_str_eq(chat->on_duplicate, "replace");
    ck_assert_uint_eq(chat->max_connections, 7);
    ck_assert_uint_eq(chat->max_connection_state, 4096);
    ck_assert_uint_eq(chat->headers.count, 1);
    ck_assert_str_eq(chat->headers.at[0], "X-Team");
    ck_assert_str_eq(chat->schemas.event, "sub/schemas/event.json");
    ck_assert_str_eq(chat->schemas.state, "/opt/state.json");
    ck_assert_ptr_null(chat->schemas.connection);
    ck_assert_ptr_null(chat->schemas.broadcast);
    ck_assert(config_type_has_handler(&before.types[2]));
    ck_assert_str_eq(before.types[2].handler, "/opt/libcounter.so");
    ck_assert_ptr_null(before.types[2].on_duplicate);
    ck_assert_uint_eq(before.types[2].max_connections, 0);
    ck_assert(!config_type_has_handler(&before.types[3]));
    ck_assert(!config_type_has_handler(&before.types[0]));
    config_print(&before, false, &shown);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "types.chat.handler: sub/rooms/chat.lua"));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "types.chat.max_connection_state: 4KiB"));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "types.chat.headers: [\"X-Team\"]"));
    /* Nothing was said of them: nothing is shown, and the handler's own hold. */
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&shown), "types.counter.max_connections:  "));
    strbuf_reset(&shown);
    config_print(&before, true, &shown);
    ck_assert_ptr_nonnull(
        strstr(strbuf_cstr(&shown),
               "\"types.counter.max_connections\":{\"value\":null,\"from\":\"default\"}"));
    put("sub/stoa.yaml", "types:\n"
                         "  chat: { handler: rooms/chat2.lua, on_duplicate: replace,\n"
                         "    max_connections: 8, max_connection_state: 4KiB, headers: [X-Team],\n"
                         "    schemas: { event: schemas/event.json, broadcast: b.json } }\n"
                         "  counter: { handler: /opt/libcounter.so }\n"
                         "  plain: { handler: events }\n");
    load(&after, "sub/stoa.yaml", NULL);
    strbuf_reset(&shown);
    config_diff(&before, &after, &shown);
    ck_assert_str_eq(strbuf_cstr(&shown), "types.chat.handler\n"
                                          "types.chat.max_connections\n"
                                          "types.chat.schemas.state\n"
                                          "types.chat.schemas.broadcast\n");
    strbuf_free(&shown);
    config_free(&before);
    config_free(&after);
}
END_TEST

START_TEST(test_durations_and_sizes)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } durations[] = {{"250ms", 250},
                     {"30s", 30000},
                     {"5m", 300000},
                     {"1h", 3600000},
                     {"7d", 604800000},
                     {"3", 3000},
                     {"0", 0},
                     {"", -1},
                     {"-1s", -1},
                     {"1.5h", -1},
                     {"1w", -1},
                     {"99999999999999999999d", -1},
                     {"9999999999999999d", -1}};
    static const struct {
        const char *text;
        uint64_t bytes; /* UINT64_MAX: refused */
    } sizes[] = {{"512KiB", 524288},
                 {"64MiB", 67108864},
                 {"2GiB", UINT64_C(2147483648)},
                 {"7", 7},
                 {"7B", 7},
                 {"1KB", UINT64_MAX},
                 {"x", UINT64_MAX},
                 {"99999999TiB", UINT64_MAX}};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        int64_t ms = -1;
        int code = config_duration(durations[i].text, &ms);
        ck_assert_int_eq(code == ERR_OK, durations[i].ms >= 0);
        ck_assert_int_eq(ms, durations[i].ms);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t bytes = UINT64_MAX;
        int code = config_size(sizes[i].text, &bytes);
        ck_assert_int_eq(code == ERR_OK, sizes[i].bytes != UINT64_MAX);
        ck_assert_uint_eq(bytes, sizes[i].bytes);
    }
}
END_TEST

START_TEST(test_derived)
{
    struct config a, b;
    struct strbuf out = {0};
    const char *const other[] = {"cluster.name=other", NULL};
    load(&a, NULL, NULL);
    load(&b, NULL, other);
    ck_assert_uint_ne(config_cluster_id(&a), config_cluster_id(&b));
    ck_assert_uint_ne(config_slot_seed(&a), config_slot_seed(&b));
    ck_assert_uint_ne(config_slot_seed(&a), config_cluster_id(&a));
    config_router_gateway_endpoint("tcp://h:7100", &out);
    ck_assert_str_eq(strbuf_cstr(&out), "tcp://h:7101");
    strbuf_reset(&out);
    config_router_gateway_endpoint("ipc:///run/router-0", &out);
    ck_assert_str_eq(strbuf_cstr(&out), "ipc:///run/router-0.gateway");
    strbuf_free(&out);
    config_free(&a);
    config_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *c = tcase_create("config");
    tcase_add_checked_fixture(c, enter, leave);
    tcase_add_test(c, test_defaults);
    tcase_add_test(c, test_whole_file);
    tcase_add_test(c, test_one_key_is_enough);
    tcase_add_test(c, test_peers);
    tcase_add_test(c, test_auth);
    tcase_add_test(c, test_a_secret_is_text);
    tcase_add_loop_test(c, test_refusals, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(c, test_empty_sections_are_fine);
    tcase_add_test(c, test_missing_file);
    tcase_add_test(c, test_who_wins);
    tcase_add_test(c, test_bad_variables_and_flags);
    tcase_add_test(c, test_paths_and_secrets_are_relative_to_the_file);
    tcase_add_test(c, test_default_text_reads_back);
    tcase_add_test(c, test_diff);
    tcase_add_test(c, test_room_types);
    tcase_add_test(c, test_durations_and_sizes);
    tcase_add_test(c, test_derived);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
