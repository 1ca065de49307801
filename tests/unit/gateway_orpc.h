/* Test support: clients of the orpc dialect: tokens, frames, sockets. */
#ifndef STOA_TESTS_GATEWAY_ORPC_H
#define STOA_TESTS_GATEWAY_ORPC_H

#include "gateway_world.h"

#include <sodium.h>

#include "common/json.h"
#include "common/limits.h"
#include "common/strbuf.h"

#define KEY "secret-key"
/* As oRPC's own code makes them of this key. */
#define E2_CLAIMS                                                              \
    "{\"chn\":\"some-room\",\"tags\":[\"tag1\"],\"rpc\":[\"publishMessage\"]," \
    "\"att\":{\"userId\":\"user-123\"},\"iat\":1700000000,\"exp\":4102444800}"
#define E2_SIGNATURE "fdCACwbQ-XaHB53gEYuvPcUx2RE4UFtqUGk6wsdmojY"
#define E1_TOKEN                                                                         \
    "eyJhbGciOiJIUzI1NiJ9.eyJjaG4iOiJzb21lLXJvb20iLCJycGMiOlsicHVibGlzaE1lc3NhZ2UiXSwi"  \
    "YXR0Ijp7InVzZXJJZCI6InVzZXItMTIzIn0sImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ" \
    ".OzG3oBrGqeeZ1mfnc5a2Ussgdzp-RsUhzGu9y-j5Otw"
#define OPENED(id) "{\"i\":" id ",\"p\":{\"h\":{\"content-type\":\"text/event-stream\"}}}"
#define EVENT(id, json, seq)                                               \
    "{\"i\":" id ",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":" json \
    "},\"m\":{\"id\":\"" seq "\",\"retry\":250}}}"
#define SUBSCRIBE(id) "{\"i\":" id ",\"p\":{\"u\":\"/subscribe\",\"b\":{}}}"
#define RESUME(id, last) \
    "{\"i\":" id ",\"p\":{\"u\":\"/subscribe\",\"b\":{},\"h\":{\"last-event-id\":\"" last "\"}}}"

/* ---- tokens ---- */

static char token_text[8192], target_text[24576];

static const char *signed_token(const char *claims)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    char text[64];
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)KEY, strlen(KEY));
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)claims, strlen(claims));
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_bin2base64(text, sizeof text, mac, sizeof mac, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    snprintf(token_text, sizeof token_text, "%s.%s", claims, text);
    return token_text;
}

static const char *target(const char *path, const char *id, const char *token)
{
    size_t at = (size_t)snprintf(target_text, sizeof target_text, "%s?", path);
    if (id)
        at += (size_t)snprintf(target_text + at, sizeof target_text - at, "id=%s&", id);
    at += (size_t)snprintf(target_text + at, sizeof target_text - at, "token=");
    for (; *token; token++)
        at += (size_t)snprintf(target_text + at, sizeof target_text - at, "%%%02X",
                               (unsigned char)*token);
    return target_text;
}

static struct client *open_e2(unsigned client, const char *id, const char *claims)
{
    struct client *c = upgrade(client, target("/iterator", id, signed_token(claims)), NULL);
    ck_assert(c->upgraded);
    ck_assert_str_eq(c->subprotocol, "");
    return c;
}

static void hears(struct client *c, const char *wanted)
{
    ck_assert_str_eq(frame(c), wanted);
}

static const struct gateway_route own_routes[] = {
    {.path = "/rooms/{house}",
     .key = "chat:{house}-{chn}",
     .dialect = ROUTE_ORPC,
     .signing_key = KEY,
     .retry_ms = 1000},
    {.path = "/plain",
     .key = "{chn}",
     .dialect = ROUTE_ORPC,
     .signing_key = "another",
     .retry_ms = 0},
};

#endif
