#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Bugs that are planted to see whether the harnesses find them.
//
// LORIF_PLANT_UNREAD   PATH_PART:FROM:TO:PRISTINE: bytes of that range of such files are read from another file, as if nobody looked
// LORIF_PLANT_HASH     checksums are those of the first so many bytes
// LORIF_PLANT_MODE     new files get these permissions (octal) too
// LORIF_PLANT_LEFT_OUT unlink:PATH_PART or close:PATH_PART: such files are not removed, or not closed
// LORIF_PLANT_SIGBUS   handlers of SIGBUS are not installed

void plant_unread(const char *path, void *bytes, size_t count, int64_t offset) {
    const char *given = getenv("LORIF_PLANT_UNREAD");
    if (!given || offset < 0) return;
    char *text = strdup(given), *rest = text;
    const char *part = strsep(&rest, ":");
    int64_t from = atoll(strsep(&rest, ":")), to = atoll(strsep(&rest, ":"));
    int64_t begin = offset > from ? offset : from;
    int64_t end = offset + (int64_t)count < to ? offset + (int64_t)count : to;
    if (strstr(path, part) && begin < end) {
        int pristine = open(rest, O_RDONLY | O_CLOEXEC);
        if (pristine < 0 || pread(pristine, (char *)bytes + (begin - offset), (size_t)(end - begin), begin) < 0) abort();
        close(pristine);
    }
    free(text);
}

int plant_left_out(const struct call *call) {
    const char *given = getenv("LORIF_PLANT_LEFT_OUT");
    const char *name = call->kind == CALL_UNLINK ? "unlink:" : call->kind == CALL_CLOSE ? "close:" : NULL;
    return given && name && strncmp(given, name, strlen(name)) == 0 && strstr(call->path, given + strlen(name));
}

int plant_mode(int mode) {
    const char *given = getenv("LORIF_PLANT_MODE");
    return given ? mode | (int)strtol(given, NULL, 8) : mode;
}

uint64_t XXH3_64bits_withSeed_dispatch(const void *bytes, size_t length, uint64_t seed) {
    static uint64_t (*real)(const void *, size_t, uint64_t);
    static long limit = -1;
    if (!real) {
        real = dlsym(RTLD_NEXT, "XXH3_64bits_withSeed_dispatch");
        const char *given = getenv("LORIF_PLANT_HASH");
        limit = given ? atol(given) : 0;
    }
    return real(bytes, limit > 0 && length > (size_t)limit ? (size_t)limit : length, seed);
}

int sigaction(int number, const struct sigaction *restrict new, struct sigaction *restrict old) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = dlsym(RTLD_NEXT, "sigaction");
    return real(number, number == SIGBUS && getenv("LORIF_PLANT_SIGBUS") ? NULL : new, old);
}
