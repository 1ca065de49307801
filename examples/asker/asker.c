/* SHELL. A service that asks rooms, through libstoa:
 *
 *     stoa-example-asker ROUTER COUNTER POLL
 *     stoa-example-asker ipc://$PWD/data/run/router-0 counter:visits poll:lunch
 *
 * It adds 2 to a counter (examples/counter) so that it is counted once whatever happens in between,
 * lets the counter refuse a number, and sets the end of a poll (examples/poll) while it goes on
 * with other work. Cluster: STOA_CLUSTER, or "stoa". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stoa.h>

/* What is done must be done once: the same key is asked again until the room has answered. */
static int add_once(stoa *client, const char *counter, const char *id)
{
    stoa_call_options options = STOA_CALL_OPTIONS_INIT;
    stoa_result *r;
    int code;
    options.idempotency_key = id;
    do {
        code = stoa_call(client, counter, "add", "{\"by\":2}", 8, &options, &r);
        if (code == STOA_OK)
            printf("%s: %s%s\n", counter, r->data, r->duplicate ? " (had been done)" : "");
        else
            fprintf(stderr, "%s: %s\n", counter, r ? r->message : stoa_strerror(code));
        stoa_result_free(r);
    } while (code == STOA_UNKNOWN || code == STOA_TIMEOUT);
    return code;
}

/* A room says no in its own words. */
static void add_too_much(stoa *client, const char *counter)
{
    static const char much[] = "{\"by\":1000000000000}";
    stoa_result *r;
    if (stoa_call(client, counter, "add", much, strlen(much), NULL, &r) == STOA_ROOM)
        printf("%s: %s (%d): %s %s\n", counter, r->tag, r->status, r->message, r->data);
    stoa_result_free(r);
}

static void on_closing(void *arg, int code, const stoa_result *result)
{
    int *done = arg;
    if (code == STOA_OK)
        printf("the poll ends at a time that is known: %d\n",
               strstr(result->data, "closes") != NULL);
    else
        fprintf(stderr, "the poll: %s: %s\n", result->tag, result->message);
    *done = 1;
}

int main(int argc, char **argv)
{
    stoa *client;
    char why[256], id[64];
    stoa_options options = STOA_OPTIONS_INIT;
    int closing = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: %s ROUTER COUNTER POLL\n", argv[0]);
        return 2;
    }
    options.routers = argv[1];
    options.cluster = getenv("STOA_CLUSTER");
    if (stoa_open(&client, &options, why) != STOA_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    int code = stoa_call_async(client, argv[3], "close_in", "{\"seconds\":60}", 14, NULL,
                               on_closing, &closing);
    if (code != STOA_OK)
        return 1;
    snprintf(id, sizeof id, "order-%s", argv[2]); /* of what is counted: it names this one thing */
    code = add_once(client, argv[2], id);
    if (code == STOA_OK)
        code = add_once(client, argv[2], id); /* as after a crash of this program */
    add_too_much(client, argv[2]);
    while (!closing)
        stoa_poll(client, 1000);
    stoa_close(client, 1000);
    return code == STOA_OK ? 0 : 1;
}
