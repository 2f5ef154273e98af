#define _GNU_SOURCE
#include "shim.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The record: for each call seven little-endian i64 (kind, descriptor, offset, flags, and the lengths of path, second path
// and bytes), then path, second path, bytes. Only successful calls that change something, or make changes durable, are in it.

static int output = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

void record_arm(void) {
    const char *path = getenv("LORIF_RECORD");
    if (path) output = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (path && output < 0) abort();
}

void record_begin(void) {
    if (output >= 0) pthread_mutex_lock(&order);
}

static int changes(const struct call *call) {
    switch (call->kind) {
    case CALL_OPEN: return 1;
    case CALL_READ: case CALL_STAT: case CALL_LIST: case CALL_CONTROL: return 0;
    case CALL_MAP: return call->flags;
    default: return 1;
    }
}

static void put(const void *bytes, size_t length) {
    // The wrapper of write passes on what is not watched, as this descriptor is not.
    for (size_t done = 0; done < length;) {
        ssize_t count = write(output, (const char *)bytes + done, length - done);
        if (count <= 0) abort();
        done += (size_t)count;
    }
}

void record_end(const struct call *call, int succeeded) {
    if (output < 0) return;
    if (succeeded && changes(call)) {
        size_t path_length = call->path ? strlen(call->path) : 0;
        size_t second_length = call->second_path ? strlen(call->second_path) : 0;
        size_t byte_count = call->bytes ? call->length : 0;
        int64_t header[7] = {call->kind, call->descriptor, call->offset, call->flags,
                             (int64_t)path_length, (int64_t)second_length, (int64_t)byte_count};
        put(header, sizeof header);
        put(call->path, path_length);
        put(call->second_path, second_length);
        put(call->bytes, byte_count);
    }
    pthread_mutex_unlock(&order);
}
