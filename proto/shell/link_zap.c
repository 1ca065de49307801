/* SHELL. CURVE keys and who may connect. CURVE alone encrypts for any client key, so each context
 * has a handler of ZeroMQ's authentication protocol (RFC 27), answered from the loop by comparing
 * the client's public key with the allow list. CZMQ's zauth would do the same from a thread of its
 * own with certificate files in a directory; keys from the configuration need neither. */
#include <errno.h>
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

static bool allowed_load(struct link_keys *keys, const char *const *allowed)
{
    size_t count = 0;
    while (allowed && allowed[count])
        count++;
    keys->allowed = mem_zalloc((count + 2) * sizeof *keys->allowed);
    if (keys->public[0] && key_decode(keys->public, keys->allowed[keys->n_allowed]))
        keys->n_allowed++;
    if (keys->server[0] && key_decode(keys->server, keys->allowed[keys->n_allowed]))
        keys->n_allowed++;
    for (size_t i = 0; i < count; i++)
        if (!key_decode(allowed[i], keys->allowed[keys->n_allowed++]))
            return false;
    return true;
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
    if (!keys->problem && !allowed_load(keys, curve->allowed))
        keys->problem = "cluster.curve.allowed has an entry that is not a Z85 key of 40 characters";
}

void link_keys_wipe(struct link_keys *keys)
{
    mem_free(keys->allowed);
    explicit_bzero(keys, sizeof *keys);
}

/* ---- the handler ---- */

static bool key_allowed(const struct links *l, zframe_t *credentials)
{
    if (!credentials || zframe_size(credentials) != CURVE_KEY_BYTES)
        return false;
    for (size_t i = 0; i < l->keys.n_allowed; i++)
        if (memcmp(l->keys.allowed[i], zframe_data(credentials), CURVE_KEY_BYTES) == 0)
            return true;
    return false;
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
        LOG_STR("hint", "if it belongs to this cluster, add it to cluster.curve.allowed"));
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
    bool allowed = version && zframe_streq(version, "1.0") && mechanism &&
                   zframe_streq(mechanism, "CURVE") && key_allowed(l, credentials);
    if (!allowed)
        refusal_log(l, address, credentials);
    zmsg_t *reply = zmsg_new();
    zmsg_addstr(reply, "1.0");
    zmsg_addmem(reply, id ? zframe_data(id) : NULL, id ? zframe_size(id) : 0);
    zmsg_addstr(reply, allowed ? "200" : "400");
    zmsg_addstr(reply, allowed ? "OK" : "key not allowed");
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
