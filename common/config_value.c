/* SHELL (pure, but config.h is a shell header). Texts of the configuration into values and back. A
 * value is written as it is read: what config_value_text gives, config_value_set takes. */
#include "common/config_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/mem.h"

struct unit {
    const char *name;
    uint64_t factor;
};
/* Largest first: the text of a value takes the first that divides it. */
static const struct unit times[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                    {"s", 1000},     {"ms", 1},      {"", 1000}};
static const struct unit sizes[] = {{"TiB", UINT64_C(1) << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20},
                                    {"KiB", 1 << 10},           {"B", 1},         {"", 1}};

/* A whole number followed by one of the units. */
static int number_with_unit(const char *text, const struct unit *units, size_t n, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return ERR_INVALID;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0)
        return ERR_TOO_LARGE;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (number > (uint64_t)INT64_MAX / units[i].factor)
            return ERR_TOO_LARGE;
        *out = number * units[i].factor;
        return ERR_OK;
    }
    return ERR_INVALID;
}

int config_duration(const char *text, int64_t *ms)
{
    uint64_t value;
    TRY(number_with_unit(text, times, sizeof times / sizeof *times, &value));
    *ms = (int64_t)value;
    return ERR_OK;
}

int config_size(const char *text, uint64_t *bytes)
{
    return number_with_unit(text, sizes, sizeof sizes / sizeof *sizes, bytes);
}

static void put_with_unit(struct strbuf *out, uint64_t value, const struct unit *units)
{
    while (units->factor > 1 && (value % units->factor != 0 || value == 0))
        units++;
    strbuf_printf(out, "%llu%s", (unsigned long long)(value / units->factor), units->name);
}

/* ---- kinds ---- */

static bool rate_read(const char *text, double *out)
{
    char *end;
    if (!((text[0] >= '0' && text[0] <= '9') || text[0] == '.'))
        return false;
    double value = strtod(text, &end);
    if (strcmp(end, "/m") == 0)
        value /= 60;
    else if (strcmp(end, "/h") == 0)
        value /= 3600;
    else if (*end != '\0' && strcmp(end, "/s") != 0)
        return false;
    *out = value;
    return isfinite(value);
}

/* host:port, [v6]:port, tcp://..., ipc://path. */
static bool endpoint_ok(const char *text)
{
    if (strncmp(text, "ipc://", 6) == 0)
        return text[6] != '\0';
    if (strncmp(text, "tcp://", 6) == 0)
        text += 6;
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || strlen(colon + 1) == 0 || strlen(colon + 1) > 5)
        return false;
    if (strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    return strtoul(colon + 1, NULL, 10) <= 65535 && strchr(text, '/') == NULL;
}

static bool endpoint_check(const char *text, struct strbuf *why)
{
    if (!endpoint_ok(text)) {
        strbuf_printf(why, "\"%s\" is no endpoint; write host:port or ipc:///path", text);
        return false;
    }
    if (strncmp(text, "ipc://", 6) == 0 && strlen(text) > 6 + 95) {
        strbuf_printf(why, "the path of an ipc endpoint has at most 95 bytes, this one %zu",
                      strlen(text) - 6);
        return false;
    }
    return true;
}

static bool one_of(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *at = choices; *at != '\0';) {
        size_t length = strcspn(at, "|");
        if (length == n && memcmp(at, text, n) == 0)
            return true;
        at += length + (at[length] == '|');
    }
    return false;
}

static bool choice_check(const struct field *f, const char *text, struct strbuf *why)
{
    if (!f->choices || one_of(f->choices, text))
        return true;
    if (f->later && (strcmp(f->later, "*") == 0 || one_of(f->later, text))) {
        strbuf_printf(why, "\"%s\" comes in a later version; for now it can be ", text);
    } else {
        strbuf_printf(why, "\"%s\" is not one of its values: ", text);
    }
    for (const char *at = f->choices; *at != '\0'; at++) {
        if (*at == '|')
            strbuf_put_text(why, ", ");
        else
            strbuf_put_byte(why, (uint8_t)*at);
    }
    return false;
}

static const char *kind_wanted(enum field_kind kind)
{
    switch (kind) {
    case FIELD_UNSIGNED:
    case FIELD_NUMBER:
        return "a whole number";
    case FIELD_SIZE:
        return "a size like 512KiB or 64MiB";
    case FIELD_DURATION:
        return "a duration like 250ms, 30s, 5m, 1h or 7d";
    case FIELD_RATE:
        return "a rate like 50/s";
    case FIELD_BOOL:
        return "true or false";
    default:
        return "a text";
    }
}

static bool number_read(const struct field *f, const char *text, uint64_t *value)
{
    static const struct unit plain[] = {{"", 1}};
    int64_t ms;
    switch (f->kind) {
    case FIELD_SIZE:
        return config_size(text, value) == ERR_OK;
    case FIELD_DURATION:
        if (config_duration(text, &ms) != ERR_OK)
            return false;
        *value = (uint64_t)ms;
        return true;
    default:
        return number_with_unit(text, plain, 1, value) == ERR_OK;
    }
}

static bool set_number(const struct field *f, void *at, const char *text, struct strbuf *why)
{
    uint64_t value = 0;
    if (!number_read(f, text, &value)) {
        strbuf_printf(why, "\"%s\" is not %s", text, kind_wanted(f->kind));
        return false;
    }
    if (value < f->min || (f->max != 0 && value > f->max)) {
        const struct unit *units = f->kind == FIELD_SIZE       ? sizes
                                   : f->kind == FIELD_DURATION ? times
                                                               : &sizes[5];
        strbuf_printf(why, "\"%s\" is out of range, ", text);
        put_with_unit(why, f->min, units);
        strbuf_put_text(why, f->max != 0 ? " to " : " at least");
        if (f->max != 0)
            put_with_unit(why, f->max, units);
        return false;
    }
    if (f->kind == FIELD_UNSIGNED)
        *(unsigned *)at = (unsigned)value;
    else if (f->kind == FIELD_DURATION)
        *(int64_t *)at = (int64_t)value;
    else
        *(uint64_t *)at = value;
    return true;
}

static bool set_rate(const struct field *f, double *at, const char *text, struct strbuf *why)
{
    double value = 0;
    if (!rate_read(text, &value)) {
        strbuf_printf(why, "\"%s\" is not %s", text, kind_wanted(f->kind));
        return false;
    }
    if (value > (double)f->max) {
        strbuf_printf(why, "\"%s\" is out of range, 0/s to %llu/s", text,
                      (unsigned long long)f->max);
        return false;
    }
    *at = value;
    return true;
}

static void set_text(void *at, const char *text)
{
    char **target = at;
    mem_free(*target);
    *target = mem_strdup(text);
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

static void set_path(void *at, const char *text, const char *directory)
{
    struct strbuf path = {0};
    if (directory && text[0] != '/' && strcmp(directory, ".") != 0)
        strbuf_printf(&path, "%s/", directory);
    strbuf_put_text(&path, text);
    set_text(at, strbuf_cstr(&path));
    strbuf_free(&path);
}

static bool set_handler(void *at, const char *text, const char *directory, struct strbuf *why)
{
    if (strcmp(text, "events") == 0) {
        set_text(at, text);
        return true;
    }
    if (!has_suffix(text, ".lua") && !has_suffix(text, ".so")) {
        strbuf_printf(why, "\"%s\" is no handler; write events, or a file.lua or file.so", text);
        return false;
    }
    set_path(at, text, directory);
    return true;
}

static bool set_list(const struct field *f, void *base, const char *text, struct strbuf *why)
{
    config_value_clear(f, base);
    while (*text != '\0') {
        size_t n = strcspn(text, ",");
        char *entry = mem_strndup(text, n);
        bool fine = config_value_append(f, base, entry, why);
        mem_free(entry);
        if (!fine)
            return false;
        text += n + (text[n] == ',');
    }
    return true;
}

static bool set_bool(bool *at, const char *text, struct strbuf *why)
{
    *at = strcmp(text, "true") == 0;
    if (*at || strcmp(text, "false") == 0)
        return true;
    strbuf_printf(why, "\"%s\" is not %s", text, kind_wanted(FIELD_BOOL));
    return false;
}

bool config_value_set(const struct field *f, void *base, const char *text, const char *directory,
                      struct strbuf *why)
{
    void *at = (char *)base + f->offset;
    switch (f->kind) {
    case FIELD_TEXT:
        if (!choice_check(f, text, why))
            return false;
        set_text(at, text);
        return true;
    case FIELD_PATH:
        set_path(at, text, directory);
        return true;
    case FIELD_HANDLER:
        return set_handler(at, text, directory, why);
    case FIELD_ENDPOINT:
    case FIELD_KEY:
        if (!(f->kind == FIELD_KEY ? config_key_check(text, why) : endpoint_check(text, why)))
            return false;
        set_text(at, text);
        return true;
    case FIELD_LIST:
    case FIELD_ENDPOINTS:
    case FIELD_KEYS:
        return set_list(f, base, text, why);
    case FIELD_RATE:
        return set_rate(f, at, text, why);
    case FIELD_BOOL:
        return set_bool(at, text, why);
    default:
        return set_number(f, at, text, why);
    }
}

bool config_value_append(const struct field *f, void *base, const char *text, struct strbuf *why)
{
    struct config_list *list = (struct config_list *)(void *)((char *)base + f->offset);
    if (list->count == CONFIG_LIST_MAX) {
        strbuf_printf(why, "more than %d entries", CONFIG_LIST_MAX);
        return false;
    }
    if (text[0] == '\0') {
        strbuf_put_text(why, "an entry is empty");
        return false;
    }
    if ((f->kind == FIELD_ENDPOINTS && !endpoint_check(text, why)) ||
        (f->kind == FIELD_KEYS && !config_key_check(text, why)))
        return false;
    list->at = mem_realloc(list->at, (list->count + 2) * sizeof *list->at);
    list->at[list->count++] = mem_strdup(text);
    list->at[list->count] = NULL;
    return true;
}

static bool holds_text(const struct field *f)
{
    return f->kind == FIELD_TEXT || f->kind == FIELD_PATH || f->kind == FIELD_HANDLER ||
           f->kind == FIELD_ENDPOINT || f->kind == FIELD_KEY;
}

void config_value_clear(const struct field *f, void *base)
{
    void *at = (char *)base + f->offset;
    if (holds_text(f)) {
        mem_free(*(char **)at);
        *(char **)at = NULL;
    } else if (config_holds_list(f)) {
        struct config_list *list = at;
        for (size_t i = 0; i < list->count; i++)
            mem_free(list->at[i]);
        /* Never NULL, so that a reader of the entries needs no special case. */
        list->at = mem_realloc(list->at, sizeof *list->at);
        list->at[0] = NULL;
        list->count = 0;
    }
}

/* ---- back to text ---- */

static void put_text(struct strbuf *out, const char *text, bool json)
{
    if (json && !text)
        strbuf_put_text(out, "null");
    else if (json)
        json_quote(out, slice_text(text));
    else
        strbuf_put_text(out, text ? text : "");
}

static void put_list(struct strbuf *out, const struct config_list *list)
{
    strbuf_put_byte(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            strbuf_put_text(out, ", ");
        json_quote(out, slice_text(list->at[i]));
    }
    strbuf_put_byte(out, ']');
}

/* A number without a default, which nobody gave. */
static bool number_unset(const struct field *f, const void *at)
{
    return !f->preset &&
           ((f->kind == FIELD_UNSIGNED && *(const unsigned *)at == 0) ||
            ((f->kind == FIELD_NUMBER || f->kind == FIELD_SIZE) && *(const uint64_t *)at == 0));
}

static void put_number(const struct field *f, const void *at, bool json, struct strbuf *out)
{
    if (number_unset(f, at))
        strbuf_put_text(out, json ? "null" : "");
    else if (f->kind == FIELD_UNSIGNED)
        strbuf_put_u64(out, *(const unsigned *)at);
    else if (f->kind == FIELD_RATE)
        strbuf_printf(out, json ? "%g" : "%g/s", *(const double *)at);
    else if (f->kind == FIELD_SIZE && !json)
        put_with_unit(out, *(const uint64_t *)at, sizes);
    else if (f->kind == FIELD_DURATION && !json)
        put_with_unit(out, (uint64_t) * (const int64_t *)at, times);
    else if (f->kind == FIELD_DURATION)
        strbuf_printf(out, "%g", (double)*(const int64_t *)at / 1000);
    else
        strbuf_put_u64(out, *(const uint64_t *)at);
}

void config_value_text(const struct field *f, const void *base, bool json, struct strbuf *out)
{
    const void *at = (const char *)base + f->offset;
    if (f->secret)
        put_text(out, *(char *const *)at ? "***" : NULL, json);
    else if (holds_text(f))
        put_text(out, *(char *const *)at, json);
    else if (config_holds_list(f))
        put_list(out, at);
    else if (f->kind == FIELD_BOOL)
        strbuf_put_text(out, *(const bool *)at ? "true" : "false");
    else
        put_number(f, at, json, out);
}

bool config_value_is_set(const struct field *f, const void *base)
{
    const void *at = (const char *)base + f->offset;
    if (holds_text(f))
        return *(char *const *)at != NULL;
    if (config_holds_list(f))
        return ((const struct config_list *)at)->count > 0;
    return !number_unset(f, at);
}
