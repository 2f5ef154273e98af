#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// LORIF_FAIL_KINDS   bit k: calls of kind k are counted (and may fail); without it none
// LORIF_FAIL_PATH    only calls whose path contains this
// LORIF_FAIL_AT      the first call that fails, from 1; 0: only count
// LORIF_FAIL_COUNT   how many calls fail from there on; 0: all
// LORIF_FAIL_CODE    errno; 0: leave the call out and pretend success; -1: read or write half, at least a byte; -2: SIGKILL instead
// LORIF_FAIL_REPORT  a file that gets "NUMBER KIND VERDICT PATH" for each counted call

static uint64_t kinds;
static long first, number_of_failures, code;
static const char *path_part;
static int report = -1;
static long counted;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

void inject_arm(void) {
    kinds = (uint64_t)number("LORIF_FAIL_KINDS");
    first = number("LORIF_FAIL_AT");
    number_of_failures = number("LORIF_FAIL_COUNT");
    code = number("LORIF_FAIL_CODE");
    path_part = getenv("LORIF_FAIL_PATH");
    const char *path = getenv("LORIF_FAIL_REPORT");
    if (path) report = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
}

enum verdict inject_decide(struct call *call) {
    if (plant_left_out(call)) return LEAVE_OUT;
    if (!(kinds >> call->kind & 1)) return MAKE_CALL;
    int matches = !path_part || (call->path && strstr(call->path, path_part)) ||
                  (call->second_path && strstr(call->second_path, path_part));
    if (!matches) return MAKE_CALL;
    // Half of a byte is nothing, which no caller can be asked to survive.
    if (code == -1 && call->length < 2) return MAKE_CALL;
    pthread_mutex_lock(&counting);
    long now = ++counted;
    pthread_mutex_unlock(&counting);
    int strikes = first > 0 && now >= first && (number_of_failures == 0 || now < first + number_of_failures);
    if (report >= 0) {
        char line[4600];
        int length = snprintf(line, sizeof line, "%ld %d %d %.2000s %.2000s\n", now, (int)call->kind, strikes,
                              call->path ? call->path : "-", call->second_path ? call->second_path : "");
        if (write(report, line, (size_t)length) != length) abort();
    }
    if (!strikes) return MAKE_CALL;
    if (code == -2) kill(getpid(), SIGKILL);
    if (code == 0) return LEAVE_OUT;
    if (code == -1) {
        call->length /= 2;
        return MAKE_CALL;
    }
    errno = (int)code;
    return FAIL_CALL;
}
