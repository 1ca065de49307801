/* CURVE on real links over tcp: which keys get in, as what, and what is said to the others. */
#include "links_pair.h"

static char server_public[41], server_secret[41], client_public[41], client_secret[41];

static void keys_make(void)
{
    ck_assert_int_eq(zmq_curve_keypair(server_public, server_secret), 0);
    ck_assert_int_eq(zmq_curve_keypair(client_public, client_secret), 0);
}

static struct links_curve server_curve(const char *const *allowed)
{
    return (struct links_curve){.secret_key = server_secret,
                                .public_key = server_public,
                                .allowed = allowed,
                                .required = true};
}

static struct links_curve client_curve(void)
{
    return (struct links_curve){.secret_key = client_secret, .server_key = server_public};
}

START_TEST(curve_lets_the_listed_key_in)
{
    keys_make();
    const char *const allowed[] = {client_public, NULL};
    struct links_curve at_server = server_curve(allowed), at_client = client_curve();
    server = end_create(&at_server);
    dialer = end_create(&at_client);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
    await(both_up);
    ticking = false;
    step = stream_step;
    loop_run(loop);
    ck_assert_uint_eq(dialer->received, STREAM_PACKETS);
}
END_TEST

static unsigned log_count(struct end *e, const char *text)
{
    unsigned count = 0;
    const char *at = e->logged.size ? strbuf_cstr(&e->logged) : "";
    while ((at = strstr(at, text)) != NULL) {
        count++;
        at++;
    }
    return count;
}

static struct end *log_end;
static const char *log_text;

static bool logged_there(void)
{
    return end_logged(log_end, log_text);
}

static void await_log(struct end *e, const char *text)
{
    log_end = e;
    log_text = text;
    await(logged_there);
}

static bool key_refused_twice(void)
{
    return log_count(server, "link.key_refused") >= 2;
}

/* Refused, and asked again later: a key may be added while the dialer runs. */
START_TEST(curve_refuses_a_key_that_is_not_listed)
{
    keys_make();
    struct links_curve at_server = server_curve(NULL), at_client = client_curve();
    server = end_create(&at_server);
    dialer = end_create(&at_client);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
    await(key_refused_twice);
    ck_assert_uint_eq(server->ups + dialer->ups, 0);
    ck_assert(end_logged(server, client_public));
    ck_assert(end_logged(dialer, "does not allow our key"));
    ck_assert_uint_eq(log_count(dialer, "link.handshake_failed"), 1);
}
END_TEST

/* Both ends tell, and the listener tells why. */
static bool both_told(void)
{
    return end_logged(dialer, "link.handshake_failed") &&
           end_logged(server, "link.handshake_refused");
}

START_TEST(curve_refuses_clear_and_wrong_server_keys)
{
    keys_make();
    const char *const allowed[] = {client_public, NULL};
    struct links_curve at_server = server_curve(allowed), at_client = client_curve();
    char other_public[41], other_secret[41];
    ck_assert_int_eq(zmq_curve_keypair(other_public, other_secret), 0);
    at_client.server_key = other_public;
    server = end_create(&at_server);
    dialer = end_create(_i == 0 ? NULL : &at_client);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
    await(both_told);
    /* Without a key at one side, who sees it first hangs up on the other. */
    if (_i == 1)
        ck_assert(end_logged(server, "keys that do not fit"));
    ck_assert(end_logged(dialer, _i == 0 ? "cluster.curve.secret_file" : "cluster.curve.server"));
    ck_assert_uint_eq(server->ups + dialer->ups, 0);
}
END_TEST

/* The simple set-up: every process has the same key pair, and nothing else is said. */
START_TEST(curve_with_one_shared_key)
{
    keys_make();
    struct links_curve shared = {.secret_key = server_secret, .required = true};
    server = end_create(&shared);
    dialer = end_create(&shared);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
    await(both_up);
}
END_TEST

START_TEST(curve_keys_leave_ipc_alone)
{
    keys_make();
    struct links_curve at_server = server_curve(NULL);
    server = end_create(&at_server);
    dialer = end_create(NULL);
    end_listen(server, ipc);
    end_dial(dialer, ipc);
    await(both_up);
}
END_TEST

/* ---- keys with roles ---- */

static bool refused_for_its_role(void)
{
    return end_logged(server, "link.refused") && end_logged(dialer, "link.error_from_peer");
}

static void curve_pair(enum role role, struct links_curve *at_server)
{
    struct links_curve at_client = client_curve();
    server = end_create(at_server);
    dialer = end_create_as(role, &at_client);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
}

/* A publisher's key is a publisher, and nothing else. */
START_TEST(curve_keys_have_their_roles)
{
    static const enum role roles[] = {ROLE_PUBLISHER, ROLE_GATEWAY, ROLE_ROUTER, ROLE_SHARD,
                                      ROLE_ADMIN};
    char label[16];
    keys_make();
    struct config_peer peers[] = {{.key = client_public, .role = (char[]){"publisher"}}};
    struct links_curve at_server = server_curve(NULL);
    at_server.peers = peers;
    at_server.n_peers = 1;
    curve_pair(roles[_i], &at_server);
    await(_i == 0 ? both_up : refused_for_its_role);
    if (_i == 0)
        return;
    ck_assert_uint_eq(server->ups + dialer->ups, 0);
    snprintf(label, sizeof label, "%.8s", client_public);
    ck_assert_msg(end_logged(server, label), "%s", strbuf_cstr(&server->logged));
    snprintf(label, sizeof label, "%.9s", client_public);
    ck_assert(!end_logged(server, label)); /* no more of it than people need */
    ck_assert(end_logged(server, "cluster.peers"));
    ck_assert(end_logged(dialer, "cluster.peers of the listening process"));
}
END_TEST

/* The dialer calls itself "end-1". */
START_TEST(curve_keys_have_their_names)
{
    keys_make();
    struct config_peer peers[] = {
        {.key = client_public, .role = (char[]){"gateway"}, .name = (char[]){"end-7"}},
        {.key = server_public, .role = (char[]){"router"}},
        {.key = client_public, .role = (char[]){"gateway"}, .name = (char[]){"end-1"}}};
    struct links_curve at_server = server_curve(NULL);
    at_server.peers = peers;
    at_server.n_peers = _i == 0 ? 3 : 2;
    curve_pair(ROLE_GATEWAY, &at_server);
    await(_i == 0 ? both_up : refused_for_its_role);
}
END_TEST

/* The own key may be everything, unless it is listed; a key that is not listed does not get in. */
START_TEST(curve_with_roles_and_the_shared_key)
{
    keys_make();
    struct config_peer peers[] = {{.key = client_public, .role = (char[]){"publisher"}},
                                  {.key = server_public, .role = (char[]){"router"}}};
    struct links_curve shared = {.secret_key = server_secret, .required = true};
    shared.peers = peers;
    shared.n_peers = _i == 1 ? 2 : 1;
    server = end_create(&shared);
    dialer = end_create_as(ROLE_GATEWAY, &shared);
    end_listen(server, tcp);
    end_dial(dialer, tcp);
    await(_i == 0 ? both_up : refused_for_its_role);
}
END_TEST

START_TEST(curve_with_roles_refuses_a_key_that_is_not_listed)
{
    keys_make();
    char other_public[41], other_secret[41];
    ck_assert_int_eq(zmq_curve_keypair(other_public, other_secret), 0);
    struct config_peer peers[] = {{.key = other_public, .role = (char[]){"publisher"}}};
    struct links_curve at_server = server_curve(NULL);
    at_server.peers = peers;
    at_server.n_peers = 1;
    curve_pair(ROLE_PUBLISHER, &at_server);
    await(key_refused_twice);
    ck_assert(end_logged(server, "add it to cluster.peers"));
    ck_assert_uint_eq(server->ups + dialer->ups, 0);
}
END_TEST

static void *raw_connect_with(const char *identity, const char *public_key, const char *secret_key)
{
    void *zmq = raw_open(identity);
    ck_assert_int_eq(zmq_setsockopt(zmq, ZMQ_CURVE_SERVERKEY, server_public, 41), 0);
    ck_assert_int_eq(zmq_setsockopt(zmq, ZMQ_CURVE_PUBLICKEY, public_key, 41), 0);
    ck_assert_int_eq(zmq_setsockopt(zmq, ZMQ_CURVE_SECRETKEY, secret_key, 41), 0);
    ck_assert_int_eq(zmq_connect(zmq, tcp), 0);
    return zmq;
}

static bool server_down_again(void)
{
    return server->downs == 1;
}

/* The chain's next packet, as the owner of the address would send it. */
static void raw_next(void *zmq, uint64_t incarnation)
{
    struct strbuf packet = {0};
    struct message m = {.type = MSG_PURGE, .cid = 1, .slot = SLOT_UNKNOWN};
    m.key = slice_text("upload:a");
    packet_begin(&packet);
    message_encode(&packet, &m);
    packet_end(&packet, 1, incarnation, 2);
    ck_assert_int_eq(zmq_send(zmq, packet.data, packet.size, 0), (int)packet.size);
    strbuf_free(&packet);
}

/* Who takes a routing id over with another key has the right incarnation and counter, and still
 * speaks only for itself. */
START_TEST(a_routing_id_is_not_taken_over_with_another_key)
{
    keys_make();
    char other_public[41], other_secret[41];
    ck_assert_int_eq(zmq_curve_keypair(other_public, other_secret), 0);
    struct config_peer peers[] = {{.key = client_public, .role = (char[]){"publisher"}},
                                  {.key = other_public, .role = (char[]){"gateway"}}};
    struct links_curve at_server = server_curve(NULL);
    at_server.peers = peers;
    at_server.n_peers = 2;
    server = end_create(&at_server);
    end_listen(server, tcp);
    raw_context = zmq_ctx_new();
    raw_socket[0] = raw_connect_with("same", client_public, client_secret);
    raw_hello(raw_socket[0], 111);
    await(server_up);
    raw_socket[1] = raw_connect_with("same", other_public, other_secret);
    raw_next(raw_socket[1], 111);
    await(server_down_again);
    ck_assert(end_logged(server, "another key"));
    ck_assert_uint_eq(server->received, 0);
    raw_hello(raw_socket[1], 222); /* as a publisher, which this key may not be */
    await_log(server, "link.refused");
    ck_assert_uint_eq(server->ups, 1);
    zmq_close(raw_socket[0]);
    zmq_close(raw_socket[1]);
    zmq_ctx_term(raw_context);
}
END_TEST

static const struct {
    const char *secret, *server, *allowed;
    bool listen;
    int code;
    const char *text;
} key_cases[] = {
    {NULL, NULL, NULL, true, ERR_REFUSED, "give cluster.curve.secret_file"},
    {NULL, NULL, NULL, false, ERR_REFUSED, "in clear"},
    {"short", NULL, NULL, true, ERR_INVALID, "cluster.curve.secret is not"},
    {"ok", "not a key", NULL, false, ERR_INVALID, "cluster.curve.server is not"},
    {"ok", NULL, "not a key", true, ERR_INVALID, "cluster.curve.allowed has"},
};

START_TEST(keys_that_do_not_work_are_explained)
{
    keys_make();
    struct strbuf why = {0};
    const char *secret = key_cases[_i].secret;
    const char *const allowed[] = {key_cases[_i].allowed, NULL};
    struct links_curve curve = {.secret_key =
                                    secret && strcmp(secret, "ok") == 0 ? client_secret : secret,
                                .server_key = key_cases[_i].server,
                                .allowed = allowed,
                                .required = true};
    struct end *e = end_create(&curve);
    int code = key_cases[_i].listen ? links_listen(e->links, 0, tcp, &why)
                                    : links_dial(e->links, hub_dial(e->hub), tcp, &why);
    ck_assert_int_eq(code, key_cases[_i].code);
    ck_assert_msg(strstr(strbuf_cstr(&why), key_cases[_i].text) != NULL, "%s", strbuf_cstr(&why));
    ck_assert_ptr_null(strstr(strbuf_cstr(&why), client_secret));
    strbuf_free(&why);
}
END_TEST

static void add(TCase *tc)
{
    tcase_add_test(tc, curve_lets_the_listed_key_in);
    tcase_add_test(tc, curve_refuses_a_key_that_is_not_listed);
    tcase_add_loop_test(tc, curve_refuses_clear_and_wrong_server_keys, 0, 2);
    tcase_add_test(tc, curve_with_one_shared_key);
    tcase_add_test(tc, curve_keys_leave_ipc_alone);
    tcase_add_loop_test(tc, curve_keys_have_their_roles, 0, 5);
    tcase_add_loop_test(tc, curve_keys_have_their_names, 0, 2);
    tcase_add_loop_test(tc, curve_with_roles_and_the_shared_key, 0, 2);
    tcase_add_test(tc, curve_with_roles_refuses_a_key_that_is_not_listed);
    tcase_add_test(tc, a_routing_id_is_not_taken_over_with_another_key);
    tcase_add_loop_test(tc, keys_that_do_not_work_are_explained, 0,
                        sizeof key_cases / sizeof *key_cases);
}

int main(void)
{
    return links_suite("links_curve", add);
}
