/* SHELL. CURVE keys and who may connect. CURVE alone encrypts for any client key, so each context
 * has a handler of ZeroMQ's authentication protocol (RFC 27), answered from the loop by comparing
 * the client's public key with those that may connect. The answer names the key, and libzmq puts
 * that name (User-Id) on every packet of the connection: so the hub knows which roles its peer may
 * have, whatever routing id the peer gave itself. CZMQ's zauth would do the same from a thread of
 * its own with certificate files in a directory; keys from the configuration need neither. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "common/mem.h"
#include "proto/shell/link_internal.h"

#include <czmq.h> /* last: it brings syslog.h, whose macros would break log.h */

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"

/* ---- keys ---- */

/* 40 characters of Z85. */
static bool key_decode(const char *text, uint8_t out[CURVE_KEY_BYTES])
{
    return strlen(text) == CURVE_KEY_TEXT_BYTES && zmq_z85_decode(out, text) != NULL;
}

static bool key_load(char out[CURVE_KEY_TEXT_BYTES + 1], const char *text)
{
    uint8_t bytes[CURVE_KEY_BYTES];
    if (!text || !text[0])
        return true;
    bool valid = key_decode(text, bytes);
    if (valid)
        memcpy(out, text, CURVE_KEY_TEXT_BYTES + 1);
    memset(bytes, 0, sizeof bytes);
    return valid;
}

struct links_curve links_curve_of(const struct config *c)
{
    return (struct links_curve){.secret_key = c->cluster.curve.secret_key,
                                .public_key = c->cluster.curve.public_key,
                                .server_key = c->cluster.curve.server_key,
                                .allowed = (const char *const *)c->cluster.curve.allowed.at,
                                .required = c->cluster.curve.required,
                                .peers = c->cluster.peers,
                                .n_peers = c->cluster.n_peers};
}

/* The entry of a key, made if there is none; NULL: not a key. There is room for it. */
static struct link_key *key_entry(struct link_keys *keys, const char *text)
{
    uint8_t bytes[CURVE_KEY_BYTES];
    if (!key_decode(text, bytes))
        return NULL;
    for (size_t i = 0; i < keys->count; i++)
        if (memcmp(keys->at[i].bytes, bytes, sizeof bytes) == 0)
            return &keys->at[i];
    struct link_key *key = &keys->at[keys->count++];
    memcpy(key->bytes, bytes, sizeof bytes);
    snprintf(key->who.label, sizeof key->who.label, "%s", text);
    return key;
}

static enum role role_of(const char *name)
{
    for (enum role role = ROLE_PUBLISHER; role <= ROLE_ADMIN; role++)
        if (strcmp(role_name(role), name) == 0)
            return role;
    return ROLE_NONE;
}

static bool right_add(struct link_keys *keys, const struct config_peer *peer)
{
    struct link_key *key = key_entry(keys, peer->key);
    struct peer_right right = {.role = role_of(peer->role)};
    if (!key || right.role == ROLE_NONE)
        return false;
    snprintf(right.name, sizeof right.name, "%s", peer->name ? peer->name : "");
    key->rights = mem_realloc(key->rights, (key->who.n_rights + 1) * sizeof *key->rights);
    key->rights[key->who.n_rights++] = right;
    key->who.rights = key->rights;
    keys->roles = true;
    return true;
}

/* What is wrong with the keys that may connect; NULL: nothing. */
static const char *listed_load(struct link_keys *keys, const struct links_curve *curve)
{
    size_t n_allowed = 0;
    while (curve->allowed && curve->allowed[n_allowed])
        n_allowed++;
    keys->at = mem_zalloc((2 + n_allowed + curve->n_peers) * sizeof *keys->at);
    if (keys->public[0])
        (void)key_entry(keys, keys->public);
    if (keys->server[0])
        (void)key_entry(keys, keys->server);
    for (size_t i = 0; i < n_allowed; i++)
        if (!key_entry(keys, curve->allowed[i]))
            return "cluster.curve.allowed has an entry that is not a Z85 key of 40 characters";
    for (size_t i = 0; i < curve->n_peers; i++)
        if (!right_add(keys, &curve->peers[i]))
            return "cluster.peers has an entry without a Z85 key of 40 characters and a role";
    return NULL;
}

void link_keys_load(struct link_keys *keys, const struct links_curve *curve)
{
    *keys = (struct link_keys){0};
    if (!curve)
        return;
    keys->required = curve->required;
    if (!key_load(keys->secret, curve->secret_key))
        keys->problem = "cluster.curve.secret is not a Z85 key of 40 characters";
    else if (!key_load(keys->public, curve->public_key))
        keys->problem = "cluster.curve.public is not a Z85 key of 40 characters";
    else if (!key_load(keys->server, curve->server_key))
        keys->problem = "cluster.curve.server is not a Z85 key of 40 characters";
    keys->given = curve->secret_key && curve->secret_key[0];
    if (!keys->problem && keys->given && !keys->public[0] &&
        zmq_curve_public(keys->public, keys->secret) != 0)
        keys->problem = "cluster.curve.secret has no public key";
    if (!keys->problem && !keys->server[0])
        memcpy(keys->server, keys->public, sizeof keys->server); /* one key pair for all */
    if (!keys->problem)
        keys->problem = listed_load(keys, curve);
}

void link_keys_wipe(struct link_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        mem_free(keys->at[i].rights);
    mem_free(keys->at);
    explicit_bzero(keys, sizeof *keys);
}

/* ---- the handler ---- */

/* The place of the key in link_keys.at; as many as there are: not there. */
static size_t key_find(const struct links *l, zframe_t *credentials)
{
    size_t i = 0;
    if (!credentials || zframe_size(credentials) != CURVE_KEY_BYTES)
        return l->keys.count;
    while (i < l->keys.count &&
           memcmp(l->keys.at[i].bytes, zframe_data(credentials), CURVE_KEY_BYTES) != 0)
        i++;
    return i;
}

const struct link_key *link_key_of(const struct link_keys *keys, const char *user_id)
{
    char *end = NULL;
    unsigned long i = strtoul(user_id, &end, 10);
    return end != user_id && *end == '\0' && i < keys->count ? &keys->at[i] : NULL;
}

static void refusal_log(struct links *l, zframe_t *address, zframe_t *credentials)
{
    char key[CURVE_KEY_TEXT_BYTES + 1] = "";
    if (credentials && zframe_size(credentials) == CURVE_KEY_BYTES)
        (void)zmq_z85_encode(key, zframe_data(credentials), CURVE_KEY_BYTES);
    struct slice from =
        address ? slice_of(zframe_data(address), zframe_size(address)) : (struct slice){0};
    hub_refused_handshake(l->hub);
    LOG(l->log, LOG_WARN, "link.key_refused", LOG_SLICE("address", from), LOG_STR("key", key),
        LOG_STR("hint", l->keys.roles
                            ? "if it belongs to this cluster, add it to cluster.peers"
                            : "if it belongs to this cluster, add it to cluster.curve.allowed"));
}

/* Request: version, request id, domain, address, routing id, mechanism, credentials. */
static void zap_answer(struct links *l, zmsg_t *request)
{
    zframe_t *version = zmsg_first(request);
    zframe_t *id = zmsg_next(request);
    (void)zmsg_next(request);
    zframe_t *address = zmsg_next(request);
    (void)zmsg_next(request);
    zframe_t *mechanism = zmsg_next(request);
    zframe_t *credentials = zmsg_next(request);
    size_t key = key_find(l, credentials);
    bool allowed = version && zframe_streq(version, "1.0") && mechanism &&
                   zframe_streq(mechanism, "CURVE") && key < l->keys.count;
    if (!allowed)
        refusal_log(l, address, credentials);
    zmsg_t *reply = zmsg_new();
    zmsg_addstr(reply, "1.0");
    zmsg_addmem(reply, id ? zframe_data(id) : NULL, id ? zframe_size(id) : 0);
    zmsg_addstr(reply, allowed ? "200" : "400");
    zmsg_addstr(reply, allowed ? "OK" : "key not allowed");
    if (allowed)
        zmsg_addstrf(reply, "%zu", key); /* the user id: on every packet of the connection */
    else
        zmsg_addstr(reply, "");
    zmsg_addmem(reply, "", 0);
    if (zmsg_send(&reply, l->zap.zmq) != 0)
        zmsg_destroy(&reply);
}

static void on_zap(struct ev_loop *ev, ev_io *w, int events)
{
    (void)ev;
    (void)events;
    struct links *l = w->data;
    while (link_events(l->zap.zmq) & ZMQ_POLLIN) {
        zmsg_t *request = zmsg_recv(l->zap.zmq);
        if (!request)
            return;
        zap_answer(l, request);
        zmsg_destroy(&request);
    }
}

int link_zap_start(struct links *l, struct strbuf *why)
{
    if (l->zap.zmq)
        return ERR_OK;
    l->zap.zmq = zmq_socket(l->context, ZMQ_REP);
    if (!l->zap.zmq || zmq_bind(l->zap.zmq, ZAP_ENDPOINT) != 0) {
        strbuf_printf(why, "no ZeroMQ authentication: %s", zmq_strerror(errno));
        if (l->zap.zmq)
            (void)zmq_close(l->zap.zmq);
        l->zap.zmq = NULL;
        return ERR_IO;
    }
    link_set_int(l->zap.zmq, ZMQ_LINGER, 0);
    link_watch(l, &l->zap.io, l->zap.zmq, on_zap, l);
    return ERR_OK;
}

void link_zap_stop(struct links *l)
{
    if (!l->zap.zmq)
        return;
    ev_io_stop(loop_ev(l->loop), &l->zap.io);
    (void)zmq_close(l->zap.zmq);
    l->zap.zmq = NULL;
}
