/* SHELL. An upload service: its own process, a real HTTP PUT of a real file, progress told through
 * libstoa.
 *
 *   - POST /uploads?name=N&size=S, 201 {"id"}: makes an upload; the key `uploads` learns of it
 *   - PUT /uploads/{id}, 200 {"id"}: the whole file; cut off, it has failed
 *   - PATCH /uploads/{id}?offset=N, 200 {"offset"}: bytes from there on; cut off, it can be resumed
 *   - GET /uploads/{id}, 200 {"offset","size"}: where to resume
 *   - GET /uploads/health, 200
 *
 * The key of an upload is its id. Its events have the shapes that Uploadista's clients know:
 * upload-started, upload-progress (a byte offset, at most one per 200 ms, conflated: who catches up
 * gets only the newest), upload-complete, upload-failed. Publishing never delays the upload:
 * progress that cannot be queued is dropped, the others are waited for.
 *
 * HTTP is libmicrohttpd's, one thread per connection; libstoa runs its own thread and is shared by
 * all. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stoa.h"

#define ID_BYTES 16 /* random bytes of an id, written as 32 hexadecimal digits */
#define ID_DIGITS (2 * ID_BYTES)
#define NAME_MAX_BYTES 200
#define SIZE_MAX_BYTES (UINT64_C(4) << 30)
#define PROGRESS_INTERVAL_MS 200 /* Uploadista's own interval */
#define EVENT_MAX_BYTES 2048
#define LOBBY "uploads"
#define NO_DISK "cannot write to the upload directory"

struct service {
    stoa *stoa;
    int directory;
};

struct upload {
    bool answered;
    bool resumable; /* the end of the connection is not the end of the upload */
    int file;       /* -1: none */
    char id[ID_DIGITS + 1];
    char name[NAME_MAX_BYTES + 1];
    uint64_t size;
    uint64_t offset;
    int64_t told_ms;
    const char *failure; /* NULL: none yet */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void iso_time(char out[32])
{
    struct timespec t;
    struct tm parts;
    char seconds[20];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &parts);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out, 32, "%s.%03uZ", seconds, (unsigned)(t.tv_nsec / 1000000) % 1000);
}

/* Quotes for JSON: the name comes from outside. Control characters become spaces. */
static void quote(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 3 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            out[n++] = '\\';
        out[n++] = c < 0x20 ? ' ' : (char)c;
    }
    out[n] = '\0';
}

/* Tells the upload's key one event. `wait` for those that must not be lost. */
static bool tell(struct service *service, const struct upload *upload, const char *type,
                 const char *data, bool wait)
{
    char event[EVENT_MAX_BYTES], at[32];
    iso_time(at);
    int n = snprintf(event, sizeof event,
                     "{\"type\":\"upload_event\",\"payload\":{\"type\":\"%s\",\"data\":%s},"
                     "\"timestamp\":\"%s\"}",
                     type, data, at);
    if (n < 0 || (size_t)n >= sizeof event)
        return false;
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    if (wait)
        return stoa_publish(service->stoa, upload->id, event, (size_t)n, &options, NULL) == STOA_OK;
    options.conflate = "progress";
    return stoa_publish_async(service->stoa, upload->id, event, (size_t)n, &options, NULL, NULL) ==
           STOA_OK;
}

/* The whole file's description, as started and complete carry it. */
static bool tell_file(struct service *service, const struct upload *upload, const char *type)
{
    char data[EVENT_MAX_BYTES / 2], name[2 * NAME_MAX_BYTES + 4];
    quote(name, sizeof name, upload->name);
    snprintf(data, sizeof data,
             "{\"id\":\"%s\",\"offset\":%" PRIu64 ",\"size\":%" PRIu64
             ",\"storage\":{\"id\":\"disk\",\"type\":\"file\"},\"metadata\":{\"fileName\":\"%s\"}}",
             upload->id, upload->offset, upload->size, name);
    return tell(service, upload, type, data, true);
}

static void tell_progress(struct service *service, struct upload *upload)
{
    int64_t now = now_ms();
    if (now - upload->told_ms < PROGRESS_INTERVAL_MS)
        return;
    char data[160];
    snprintf(data, sizeof data, "{\"id\":\"%s\",\"progress\":%" PRIu64 ",\"total\":%" PRIu64 "}",
             upload->id, upload->offset, upload->size);
    if (tell(service, upload, "upload-progress", data, false))
        upload->told_ms = now;
}

/* Nothing more comes for now, so this one is not left out for being soon after another. */
static void tell_where_it_stands(struct service *service, struct upload *upload)
{
    upload->told_ms = 0;
    tell_progress(service, upload);
}

static void tell_failure(struct service *service, const struct upload *upload)
{
    char data[256];
    snprintf(data, sizeof data, "{\"id\":\"%s\",\"error\":\"%s\"}", upload->id, upload->failure);
    tell(service, upload, "upload-failed", data, true);
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status,
                              const char *format, ...) __attribute__((format(printf, 3, 4)));
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status,
                              const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
    MHD_add_response_header(response, "Content-Type", "application/json");
    MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH");
    MHD_add_response_header(response, "Access-Control-Allow-Headers", "*");
    enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

static bool id_valid(const char *text)
{
    return strlen(text) == ID_DIGITS && strspn(text, "0123456789abcdef") == ID_DIGITS;
}

static bool parse_size(const char *text, uint64_t *size)
{
    char *end;
    errno = 0;
    *size = text != NULL && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : UINT64_MAX;
    return *size <= SIZE_MAX_BYTES && errno == 0 && *end == '\0';
}

/* Notes beside the file what is expected, so that the PUT needs nothing but the id. */
static bool note_write(struct service *service, const struct upload *upload)
{
    char name[ID_DIGITS + 8], text[NAME_MAX_BYTES + 32];
    snprintf(name, sizeof name, "%s.note", upload->id);
    int n = snprintf(text, sizeof text, "%" PRIu64 "\n%s", upload->size, upload->name);
    int file = openat(service->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool fine = file >= 0 && write(file, text, (size_t)n) == n;
    if (file >= 0)
        close(file);
    return fine;
}

static bool note_read(struct service *service, struct upload *upload)
{
    char name[ID_DIGITS + 8], text[NAME_MAX_BYTES + 32];
    snprintf(name, sizeof name, "%s.note", upload->id);
    int file = openat(service->directory, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    char *line = n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
    if (line == NULL)
        return false;
    text[n] = '\0';
    *line = '\0';
    snprintf(upload->name, sizeof upload->name, "%s", line + 1);
    return parse_size(text, &upload->size);
}

static enum MHD_Result handle_create(struct service *service, struct MHD_Connection *connection)
{
    struct upload upload = {.file = -1};
    const char *name = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "name");
    const char *size = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "size");
    if (name == NULL || *name == '\0' || strlen(name) > NAME_MAX_BYTES)
        return answer(connection, 400, "{\"error\":\"name: 1 to %d bytes\"}", NAME_MAX_BYTES);
    if (!parse_size(size, &upload.size))
        return answer(connection, 413, "{\"error\":\"size: 0 to %" PRIu64 " bytes\"}",
                      SIZE_MAX_BYTES);
    snprintf(upload.name, sizeof upload.name, "%s", name);
    uint8_t random[ID_BYTES];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return answer(connection, 500, "{\"error\":\"no random numbers\"}");
    for (int i = 0; i < ID_BYTES; i++)
        snprintf(upload.id + 2 * i, 3, "%02x", random[i]);
    if (!note_write(service, &upload))
        return answer(connection, 507, "{\"error\":\"%s\"}", NO_DISK);
    char event[EVENT_MAX_BYTES], quoted[2 * NAME_MAX_BYTES + 4];
    quote(quoted, sizeof quoted, upload.name);
    int n =
        snprintf(event, sizeof event,
                 "{\"type\":\"upload-created\",\"id\":\"%s\",\"name\":\"%s\",\"size\":%" PRIu64 "}",
                 upload.id, quoted, upload.size);
    int told = stoa_publish(service->stoa, LOBBY, event, (size_t)n, NULL, NULL);
    if (told != STOA_OK || !tell_file(service, &upload, "upload-started"))
        return answer(connection, 503, "{\"error\":\"cannot publish: %s\"}", stoa_strerror(told));
    return answer(connection, 201, "{\"id\":\"%s\"}", upload.id);
}

/* Lets go of the file before the answer goes out: who has the answer may write on. */
static void end_request(struct upload *upload)
{
    upload->answered = true;
    if (upload->file >= 0)
        close(upload->file);
    upload->file = -1;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, struct upload *upload,
                              unsigned status, const char *why)
{
    end_request(upload);
    return answer(connection, status, "{\"error\":\"%s\"}", why);
}

/* First call of a PUT or PATCH: everything that can be refused before the bytes come. One request
 * at a time writes a file, so that what a lost connection still has in flight mixes with nothing.
 */
static enum MHD_Result begin_bytes(struct service *service, struct MHD_Connection *connection,
                                   const char *id, struct upload *upload)
{
    snprintf(upload->id, sizeof upload->id, "%s", id);
    if (!id_valid(id) || !note_read(service, upload))
        return refuse(connection, upload, 404, "no such upload; POST /uploads makes one");
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (upload->resumable ? 0 : O_EXCL);
    int file = openat(service->directory, id, flags, 0600);
    if (file < 0)
        return errno == EEXIST ? refuse(connection, upload, 409, "already uploaded")
                               : refuse(connection, upload, 507, NO_DISK);
    upload->file = file; /* closed by end_request, and with it the lock */
    struct stat stat;
    if (flock(file, LOCK_EX | LOCK_NB) != 0)
        return refuse(connection, upload, 409, "another request is writing; try again");
    if (fstat(file, &stat) != 0)
        return refuse(connection, upload, 507, NO_DISK);
    upload->offset = (uint64_t)stat.st_size;
    if (!upload->resumable)
        return MHD_YES;
    uint64_t offset;
    if (!parse_size(MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "offset"),
                    &offset) ||
        offset != upload->offset)
        return refuse(connection, upload, 409, "not the offset; GET /uploads/{id} tells it");
    return MHD_YES;
}

/* Where a PATCH would go on. */
static enum MHD_Result handle_offset(struct service *service, struct MHD_Connection *connection,
                                     const char *id)
{
    struct upload upload = {0};
    struct stat stat = {0};
    if (id_valid(id))
        snprintf(upload.id, sizeof upload.id, "%s", id);
    if (upload.id[0] == '\0' || !note_read(service, &upload))
        return answer(connection, 404, "{\"error\":\"no such upload; POST /uploads makes one\"}");
    if (fstatat(service->directory, id, &stat, 0) != 0 && errno != ENOENT)
        return answer(connection, 507, "{\"error\":\"%s\"}", NO_DISK);
    return answer(connection, 200, "{\"offset\":%" PRIu64 ",\"size\":%" PRIu64 "}",
                  (uint64_t)stat.st_size, upload.size);
}

static void take_bytes(struct service *service, struct upload *upload, const char *bytes,
                       size_t size)
{
    if (upload->failure != NULL)
        return;
    if (upload->offset + size > upload->size) {
        upload->failure = "more bytes than announced";
        return;
    }
    while (size > 0) {
        ssize_t n = write(upload->file, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            upload->failure = "cannot write the file";
            return;
        }
        bytes += n;
        size -= (size_t)n;
        upload->offset += (uint64_t)n;
    }
    tell_progress(service, upload);
}

static enum MHD_Result finish_bytes(struct service *service, struct MHD_Connection *connection,
                                    struct upload *upload)
{
    if (upload->failure == NULL && upload->resumable && upload->offset < upload->size) {
        tell_where_it_stands(service, upload);
        end_request(upload);
        return answer(connection, 200, "{\"offset\":%" PRIu64 "}", upload->offset);
    }
    if (upload->failure == NULL && upload->offset != upload->size)
        upload->failure = "fewer bytes than announced";
    if (upload->failure == NULL && fdatasync(upload->file) != 0)
        upload->failure = "cannot write the file";
    end_request(upload);
    if (upload->failure != NULL) {
        tell_failure(service, upload);
        return answer(connection, 400, "{\"error\":\"%s\"}", upload->failure);
    }
    if (!tell_file(service, upload, "upload-complete"))
        return answer(connection, 503, "{\"error\":\"stored, but nobody could be told\"}");
    return answer(connection, 200, "{\"id\":\"%s\",\"offset\":%" PRIu64 "}", upload->id,
                  upload->offset);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *bytes,
                              size_t *size, void **state)
{
    (void)version;
    struct service *service = context;
    struct upload *upload = *state;
    if (upload == NULL) {
        *state = upload = calloc(1, sizeof *upload);
        if (upload == NULL)
            return MHD_NO;
        upload->file = -1;
        upload->resumable = strcmp(method, "PATCH") == 0;
        if ((upload->resumable || strcmp(method, "PUT") == 0) && strncmp(path, "/uploads/", 9) == 0)
            return begin_bytes(service, connection, path + 9, upload);
        return MHD_YES;
    }
    if (upload->answered || upload->file < 0) {
        bool more = *size > 0;
        *size = 0;
        if (upload->answered || more)
            return MHD_YES;
        upload->answered = true;
        if (strcmp(method, "POST") == 0 && strcmp(path, "/uploads") == 0)
            return handle_create(service, connection);
        if (strcmp(method, "GET") == 0 && strcmp(path, "/uploads/health") == 0)
            return answer(connection, 200, "{\"status\":\"ok\"}");
        if (strcmp(method, "GET") == 0 && strncmp(path, "/uploads/", 9) == 0)
            return handle_offset(service, connection, path + 9);
        if (strcmp(method, "OPTIONS") == 0)
            return answer(connection, 200, "{}");
        return answer(connection, 404, "{\"error\":\"POST /uploads, PUT or PATCH /uploads/{id}\"}");
    }
    if (*size == 0)
        return finish_bytes(service, connection, upload);
    take_bytes(service, upload, bytes, *size);
    *size = 0;
    return MHD_YES;
}

/* The connection's end, in whatever way: a PUT cut off in the middle is told as failed, a PATCH as
 * how far it came. */
static void completed(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode how)
{
    (void)connection;
    (void)how;
    struct upload *upload = *state;
    if (upload == NULL)
        return;
    if (upload->file >= 0) {
        if (!upload->answered && upload->resumable) {
            tell_where_it_stands(context, upload);
        } else if (!upload->answered) {
            upload->failure = "connection lost";
            tell_failure(context, upload);
        }
        close(upload->file);
    }
    free(upload);
    *state = NULL;
}

static void usage(FILE *out)
{
    fputs("stoa-upload: a small upload service that tells its progress through Stoa\n"
          "  --listen ADDR      127.0.0.1:8070\n"
          "  --router ENDPOINT  where to publish ($STOA_ROUTER)\n"
          "  --cluster NAME     the cluster's name ($STOA_CLUSTER_NAME, stoa)\n"
          "  --directory DIR    where files go; made when absent (uploads)\n"
          "  --curve-secret-file FILE  the cluster's CURVE key, as stoa keygen wrote it, when the\n"
          "                     router is reached over tcp ($STOA_CLUSTER_CURVE_SECRET_FILE)\n"
          "Examples:\n"
          "  stoa-upload --router tcp://127.0.0.1:7100\n"
          "  stoa up --with 'stoa-upload --directory uploads'\n",
          out);
}

struct arguments {
    const char *listen, *router, *cluster, *directory, *curve_secret_file;
};

static int parse_arguments(int argc, char **argv, struct arguments *arguments)
{
    static const struct option known[] = {{"listen", required_argument, NULL, 'l'},
                                          {"router", required_argument, NULL, 'r'},
                                          {"cluster", required_argument, NULL, 'c'},
                                          {"directory", required_argument, NULL, 'd'},
                                          {"curve-secret-file", required_argument, NULL, 'k'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    *arguments =
        (struct arguments){"127.0.0.1:8070", getenv("STOA_ROUTER"), getenv("STOA_CLUSTER_NAME"),
                           "uploads", getenv("STOA_CLUSTER_CURVE_SECRET_FILE")};
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (c) {
        case 'l':
            arguments->listen = optarg;
            break;
        case 'r':
            arguments->router = optarg;
            break;
        case 'c':
            arguments->cluster = optarg;
            break;
        case 'd':
            arguments->directory = optarg;
            break;
        case 'k':
            arguments->curve_secret_file = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            return 2;
        }
    }
    if (arguments->router == NULL) {
        fputs("stoa-upload: no --router and no $STOA_ROUTER; say where to publish, for example "
              "tcp://127.0.0.1:7100\n",
              stderr);
        return 2;
    }
    return 0;
}

/* "host:port" with a numeric host. */
static bool parse_listen(const char *text, struct sockaddr_in *address)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    char *end;
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    unsigned long port = strtoul(colon + 1, &end, 10);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return *end == '\0' && port > 0 && port < 65536 &&
           inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

/* The first line of the file, which is the key. */
static bool read_key(const char *path, char key[64])
{
    FILE *file = fopen(path, "r");
    bool read = file != NULL && fgets(key, 64, file) != NULL;
    if (file != NULL)
        fclose(file);
    if (read)
        key[strcspn(key, "\r\n")] = '\0';
    else
        fprintf(stderr, "stoa-upload: --curve-secret-file %s: %s\n", path, strerror(errno));
    return read;
}

static stoa *publisher_open(const struct arguments *arguments)
{
    char secret[64], why[256];
    stoa_options options = STOA_OPTIONS_INIT;
    options.routers = arguments->router;
    options.cluster = arguments->cluster;
    options.threaded = 1;
    if (arguments->curve_secret_file != NULL) {
        if (!read_key(arguments->curve_secret_file, secret))
            return NULL;
        options.curve_secret_key = secret;
    }
    stoa *publisher = NULL;
    if (stoa_open(&publisher, &options, why) != STOA_OK)
        fprintf(stderr, "stoa-upload: %s\n", why);
    explicit_bzero(secret, sizeof secret);
    return publisher;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    int status = parse_arguments(argc, argv, &arguments);
    if (status != 0)
        return status;
    struct sockaddr_in address;
    if (!parse_listen(arguments.listen, &address)) {
        fprintf(
            stderr,
            "stoa-upload: --listen %s: give a numeric address and a port, like 127.0.0.1:8070\n",
            arguments.listen);
        return 2;
    }
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    if (mkdir(arguments.directory, 0700) != 0 && errno != EEXIST) {
        fprintf(stderr, "stoa-upload: %s: %s\n", arguments.directory, strerror(errno));
        return 1;
    }
    struct service service = {.directory =
                                  open(arguments.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (service.directory < 0) {
        fprintf(stderr, "stoa-upload: %s: %s\n", arguments.directory, strerror(errno));
        return 1;
    }
    service.stoa = publisher_open(&arguments);
    if (service.stoa == NULL)
        return 1;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL,
        NULL, handle, &service, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
        MHD_OPTION_NOTIFY_COMPLETED, completed, &service, MHD_OPTION_CONNECTION_LIMIT, 256u,
        MHD_OPTION_CONNECTION_TIMEOUT, 60u, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (daemon == NULL) {
        fprintf(stderr, "stoa-upload: cannot listen on %s: %s\n", arguments.listen,
                strerror(errno));
        return 1;
    }
    fprintf(stderr, "stoa-upload: listening on http://%s, publishing to %s\n", arguments.listen,
            arguments.router);
    int number;
    sigwait(&ends, &number);
    MHD_stop_daemon(daemon);
    stoa_close(service.stoa, 2000);
    close(service.directory);
    return 0;
}
