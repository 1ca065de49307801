/* A program of somebody else, in C and in C++: what libstoa's package must be good for. */
#include <stdio.h>
#include <string.h>

#include <stoa.h>

static void on_ack(void *arg, int status, const stoa_id *id)
{
    *(int *)arg = id ? STOA_OK : status;
}

static void on_result(void *arg, int status, const stoa_result *result)
{
    *(int *)arg = result->status == 504 ? status : STOA_OK;
}

int main(void)
{
    stoa *s = NULL;
    char why[256], text[40];
    int status = STOA_OK;
    stoa_options options = STOA_OPTIONS_INIT;
    stoa_publish_options brief = STOA_PUBLISH_OPTIONS_INIT;
    stoa_call_options hasty = STOA_CALL_OPTIONS_INIT;
    stoa_result *result = NULL;
    int asked = STOA_OK;
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
    hasty.timeout_ms = 10;
    if (stoa_call(s, "poll:a", "totals", NULL, 0, &hasty, &result) != STOA_TIMEOUT || !result)
        return 7;
    if (result->status != 503 || strcmp(result->tag, "Moving") != 0 || result->data_size != 0)
        return 8;
    stoa_result_free(result);
    if (stoa_send_async(s, "poll:a", "{}", 2, NULL, on_result, &asked) != STOA_OK)
        return 9;
    stoa_close(s, 0);
    if (asked != STOA_UNKNOWN)
        return 10;
    printf("%s: %s, %s\n", stoa_version(), text, stoa_strerror(status));
    return status == STOA_UNKNOWN ? 0 : 6;
}
