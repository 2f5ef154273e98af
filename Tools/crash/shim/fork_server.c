#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Most of the time of a short run is the dynamic loader's and the libraries' initialisers'. With LORIF_FORK_SERVER=N the process
// reads requests from descriptor N: a u32 length and that many bytes, strings ended by zeros: time limit in seconds, paths for
// standard output and error, settings NAME=VALUE, an empty string, arguments. A forked child goes on; the answer is its i32 wait
// status. A process without arguments waits before main(), and the child calls it with those of the request. One with arguments
// waits when it first touches a path below LORIF_SHIM_ROOT: that saves parsing as well, for one fixed command.

typedef int (*main_function)(int, char **, char **);
static main_function real_main;
static int waits_for_access;
static int is_child;

static void *never_begin(void *unused) {
    while (pause() < 0) continue;
    return unused;
}

/// A thread that runs while the server forks may hold a lock of Swift's runtime or have half of something done, for ever in the
/// child, which has no such thread. So threads that a command starts before its first access (one that watches for Ctrl-C) exist in
/// the server but do not begin.
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, waits_for_access ? never_begin : start, argument);
}

/// A stream's own calls are inside libc, where no wrapper sees them.
FILE *fopen(const char *path, const char *mode) {
    static FILE *(*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "fopen");
    if (is_watched(path) && strpbrk(mode, "wa+")) {
        struct call call = {.kind = CALL_UNKNOWN, .descriptor = -1, .path = path};
        record_begin();
        record_end(&call, 1);
    }
    return real(path, mode);
}

static int take_all(int descriptor, void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t count = read(descriptor, (char *)bytes + done, length - done);
        if (count <= 0) return 0;
        done += (size_t)count;
    }
    return 1;
}

static void redirect(const char *path, int descriptor) {
    int opened = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (opened < 0 || dup2(opened, descriptor) < 0) abort();
    close(opened);
}

/// Takes the settings of a request in the child; gives the arguments, ended by NULL.
static char **begin_child(char *text, size_t length) {
    char **strings = malloc((length + 2) * sizeof *strings);
    size_t count = 0;
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) strings[count++] = text + at;
    strings[count] = NULL;
    if (count < 4) abort();
    alarm((unsigned)atoi(strings[0]));
    redirect(strings[1], STDOUT_FILENO);
    redirect(strings[2], STDERR_FILENO);
    size_t at = 3;
    for (; *strings[at]; at++) {
        if (strncmp(strings[at], "LIMIT_FILE_SIZE=", 16) == 0) {
            rlim_t limit = strtoul(strings[at] + 16, NULL, 10);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
        } else {
            putenv(strings[at]);
        }
    }
    return strings + at + 1;
}

/// Answers requests; returns only in a child, with its arguments. The parent ends with the channel.
static char **serve(void) {
    int channel = atoi(getenv("LORIF_FORK_SERVER"));
    uint32_t length;
    while (take_all(channel, &length, sizeof length)) {
        char *text = malloc(length + 1);
        if (!text || !take_all(channel, text, length)) _exit(1);
        text[length] = 0;
        pid_t child = fork();
        if (child == 0) {
            is_child = 1;
            close(channel);
            return begin_child(text, length);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child) _exit(1);
        free(text);
        if (write(channel, &status, sizeof status) != sizeof status) _exit(1);
    }
    _exit(0);
}

/// Swift's locks are priority-inheriting futexes that hold the owner's thread number, which the runtime has looked up before the
/// fork: in a child the kernel would wait for a thread of the server. So a child takes and gives them itself. Nonzero: done.
int take_runtime_lock(int operation, uint32_t *word, long *result) {
    if (!is_child) return 0;
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_LOCK_PI:
    case FUTEX_TRYLOCK_PI:
        for (uint32_t expected = 0; !__atomic_compare_exchange_n(word, &expected, (uint32_t)gettid(), 0, __ATOMIC_ACQUIRE,
                                                                 __ATOMIC_RELAXED);
             expected = 0) {
            if ((operation & FUTEX_CMD_MASK) == FUTEX_TRYLOCK_PI) {
                errno = EWOULDBLOCK;
                *result = -1;
                return 1;
            }
            usleep(20);
        }
        *result = 0;
        return 1;
    case FUTEX_UNLOCK_PI:
        __atomic_store_n(word, 0, __ATOMIC_RELEASE);
        *result = 0;
        return 1;
    default: return 0;
    }
}

void fork_at_first_access(void) {
    if (!waits_for_access) return;
    waits_for_access = 0;
    serve();
    shim_arm();
}

static int begin(int argc, char **argv, char **environment) {
    int is_server = getenv("LORIF_FORK_SERVER") != NULL;
    waits_for_access = is_server && argc > 1;
    if (!is_server || waits_for_access) {
        shim_arm();
        return real_main(argc, argv, environment);
    }
    char **arguments = serve() - 1;
    *arguments = argv[0];
    int count = 0;
    while (arguments[count]) count++;
    // Swift's runtime would take them from /proc/self/cmdline.
    void (*override)(char **, int) = dlsym(RTLD_DEFAULT, "_swift_stdlib_overrideUnsafeArgvArgc");
    if (override) override(arguments, count);
    shim_arm();
    return real_main(count, arguments, environ);
}

int __libc_start_main(main_function given, int argc, char **argv, void (*initialise)(void), void (*finish)(void),
                      void (*loader_finish)(void), void *stack_end) {
    int (*real)(main_function, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
        dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = given;
    return real(begin, argc, argv, initialise, finish, loader_finish, stack_end);
}
