/* Any bytes as a configuration file: refused with words or taken; what was taken shows itself and
 * reads back. Nothing is read but the bytes: fields that name secrets' files are cut out. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_internal.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memmem(data, size, "_file", 5) != NULL)
        return 0;
    static const char *const none[] = {NULL};
    struct config base;
    struct strbuf why = {0}, shown = {0};
    setenv("STOA_CONFIG", "", 1);
    int code = config_load(&base, "/dev/null", none, &why);
    STOA_ASSERT(code == ERR_OK);
    code = config_yaml_apply(&base, "fuzz", ".", slice_of(data, size), &why);
    STOA_ASSERT((code == ERR_OK) == (why.size == 0));
    config_print(&base, true, &shown);
    config_print(&base, false, &shown);
    strbuf_reset(&shown);
    config_diff(&base, &base, &shown);
    STOA_ASSERT(shown.size == 0);
    config_free(&base);
    strbuf_free(&why);
    strbuf_free(&shown);
    return 0;
}
