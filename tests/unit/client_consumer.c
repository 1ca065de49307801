/* A program of somebody else, in C and in C++: what libstoa's package must be good for. */
#include <stdio.h>
#include <string.h>

#include <stoa.h>

static void on_ack(void *arg, int status, const stoa_id *id)
{
    *(int *)arg = id ? STOA_OK : status;
}

int main(void)
{
    stoa *s = NULL;
    char why[256], text[40];
    int status = STOA_OK;
    stoa_options options = STOA_OPTIONS_INIT;
    stoa_publish_options brief = STOA_PUBLISH_OPTIONS_INIT;
    stoa_id id;
    memset(&id, 0, sizeof id);
    id.epoch = 35;
    id.seq = 7;
    if (strcmp(stoa_version(), STOA_VERSION) != 0 || stoa_id_text(&id, text) == 0)
        return 1;
    if (stoa_open(&s, &options, why) != STOA_INVALID)
        return 2;
    options.routers = "ipc:///nowhere/at/all";
    if (stoa_open(&s, &options, why) != STOA_OK)
        return 3;
    brief.timeout_ms = 10;
    if (stoa_publish(s, "upload:a", "{}", 2, &brief, NULL) != STOA_TIMEOUT)
        return 4;
    if (stoa_publish_async(s, "upload:a", "{}", 2, NULL, on_ack, &status) != STOA_OK)
        return 5;
    stoa_close(s, 0);
    printf("%s: %s, %s\n", stoa_version(), text, stoa_strerror(status));
    return status == STOA_UNKNOWN ? 0 : 6;
}
