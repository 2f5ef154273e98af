#define _GNU_SOURCE
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LARGEST_DESCRIPTOR 4096
#define REAL(name) ((__typeof__(&name))real_function(#name))

static char *paths[LARGEST_DESCRIPTOR];
static char root[PATH_MAX];
static size_t root_length;
int shim_armed;

static void *real_function(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

#define FORWARD(result, name, parameters, arguments)                                                                   \
    static __typeof__(&name) real_##name;                                                                              \
    if (!real_##name) real_##name = REAL(name)

void shim_arm(void) {
    const char *given = getenv("LORIF_SHIM_ROOT");
    if (!given) return;
    if (!realpath(given, root)) abort();
    root_length = strlen(root);
    inject_arm();
    record_arm();
    shim_armed = 1;
}

int is_watched(const char *path) {
    int is_below = shim_armed && path && strncmp(path, root, root_length) == 0 &&
                   (path[root_length] == '/' || path[root_length] == 0);
    if (is_below) fork_at_first_access();
    return is_below;
}

const char *watched_path(int descriptor) {
    return shim_armed && descriptor >= 0 && descriptor < LARGEST_DESCRIPTOR ? paths[descriptor] : NULL;
}

/// Makes a call under the regime of inject.c and record.c. FAILURE and SUCCESS are what the program then sees.
#define GUARDED(type, the_call, made, success)                                                                         \
    do {                                                                                                               \
        record_begin();                                                                                                \
        enum verdict verdict = inject_decide(&the_call);                                                               \
        type result;                                                                                                   \
        if (verdict == FAIL_CALL) {                                                                                    \
            int code = errno;                                                                                          \
            record_end(&the_call, 0);                                                                                  \
            errno = code;                                                                                              \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (verdict == LEAVE_OUT) {                                                                                    \
            record_end(&the_call, 0);                                                                                  \
            return success;                                                                                            \
        }                                                                                                              \
        result = made;                                                                                                 \
        int code = errno;                                                                                              \
        record_end(&the_call, result >= 0);                                                                            \
        errno = code;                                                                                                  \
        return result;                                                                                                 \
    } while (0)

// MARK: opening and closing

static int opened(int descriptor, const char *given, int flags, struct call *call) {
    if (descriptor < 0) return descriptor;
    if (descriptor >= LARGEST_DESCRIPTOR) abort();
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    free(paths[descriptor]);
    paths[descriptor] = is_watched(path) ? strdup(path) : NULL;
    call->descriptor = descriptor;
    call->path = paths[descriptor] ? paths[descriptor] : given;
    call->flags = flags;
    return descriptor;
}

static int guarded_open(int directory, const char *path, int flags, mode_t mode) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = real_function("openat");
    if (!shim_armed || !(is_watched(path) || (directory != AT_FDCWD && path[0] != '/')))
        return real(directory, path, flags, mode);
    struct call call = {.kind = CALL_OPEN, .descriptor = -1, .path = path, .flags = flags};
    GUARDED(int, call, opened(real(directory, path, flags, plant_mode(mode)), path, flags, &call), -1);
}

#define OPEN_BODY(directory)                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, mode_t);                                                                                   \
        va_end(list);                                                                                                  \
    }                                                                                                                  \
    return guarded_open(directory, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int openat(int directory, const char *path, int flags, ...) { OPEN_BODY(directory); }
int openat64(int directory, const char *path, int flags, ...) { OPEN_BODY(directory); }
int creat(const char *path, mode_t mode) {
    return guarded_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int descriptor) {
    FORWARD(int, close, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_close(descriptor);
    struct call call = {.kind = CALL_CLOSE, .descriptor = descriptor, .path = path};
    if (plant_left_out(&call)) return 0;
    record_begin();
    int result = real_close(descriptor);
    record_end(&call, 1);
    free(paths[descriptor]);
    paths[descriptor] = NULL;
    return result;
}

/// LORIF_OPEN_REPORT: a file that gets the paths of watched descriptors that are still open when the process exits, a line each.
/// All stack frames are gone by then, and with them everything that closes what it has opened.
__attribute__((destructor)) static void report_open_descriptors(void) {
    const char *path = shim_armed ? getenv("LORIF_OPEN_REPORT") : NULL;
    shim_armed = 0;
    if (!path) return;
    int report = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int descriptor = 0; descriptor < LARGEST_DESCRIPTOR; descriptor++)
        if (paths[descriptor]) dprintf(report, "%s\n", paths[descriptor]);
}

// MARK: reading

ssize_t read(int descriptor, void *bytes, size_t length) {
    FORWARD(ssize_t, read, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_read(descriptor, bytes, length);
    struct call call = {.kind = CALL_READ, .descriptor = descriptor, .path = path, .length = length, .offset = -1};
    GUARDED(ssize_t, call, real_read(descriptor, bytes, call.length), 0);
}

static ssize_t planted_pread(ssize_t (*real)(int, void *, size_t, off_t), int descriptor, void *bytes, size_t length,
                             off_t offset, const char *path) {
    ssize_t count = real(descriptor, bytes, length, offset);
    if (count > 0) plant_unread(path, bytes, (size_t)count, offset);
    return count;
}

ssize_t pread(int descriptor, void *bytes, size_t length, off_t offset) {
    FORWARD(ssize_t, pread, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_pread(descriptor, bytes, length, offset);
    struct call call = {.kind = CALL_READ, .descriptor = descriptor, .path = path, .length = length, .offset = offset};
    GUARDED(ssize_t, call, planted_pread(real_pread, descriptor, bytes, call.length, offset, path), 0);
}
ssize_t pread64(int descriptor, void *bytes, size_t length, off_t offset) {
    return pread(descriptor, bytes, length, offset);
}

// MARK: writing

ssize_t write(int descriptor, const void *bytes, size_t length) {
    FORWARD(ssize_t, write, , );
    const char *path = watched_path(descriptor);
    if (!path && !(shim_armed && descriptor == STDOUT_FILENO)) return real_write(descriptor, bytes, length);
    struct call call = {.kind = path ? CALL_WRITE : CALL_OUTPUT, .descriptor = descriptor, .path = path,
                        .bytes = bytes, .length = length, .offset = path ? lseek(descriptor, 0, SEEK_CUR) : 0};
    GUARDED(ssize_t, call, real_write(descriptor, bytes, call.length), (ssize_t)length);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    FORWARD(ssize_t, pwrite, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_pwrite(descriptor, bytes, length, offset);
    struct call call = {.kind = CALL_WRITE, .descriptor = descriptor, .path = path,
                        .bytes = bytes, .length = length, .offset = offset};
    GUARDED(ssize_t, call, real_pwrite(descriptor, bytes, call.length, offset), (ssize_t)length);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t offset) {
    return pwrite(descriptor, bytes, length, offset);
}

/// Vectors are gathered and written as one piece: what the kernel does with them in one call is not less atomic.
static ssize_t gathered(int descriptor, const struct iovec *pieces, int count, off_t offset, int is_positioned) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += pieces[i].iov_len;
    char *bytes = malloc(total ? total : 1);
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        memcpy(bytes + done, pieces[i].iov_base, pieces[i].iov_len);
        done += pieces[i].iov_len;
    }
    ssize_t result = is_positioned ? pwrite(descriptor, bytes, total, offset) : write(descriptor, bytes, total);
    int code = errno;
    free(bytes);
    errno = code;
    return result;
}
ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    FORWARD(ssize_t, writev, , );
    if (!watched_path(descriptor)) return real_writev(descriptor, pieces, count);
    return gathered(descriptor, pieces, count, 0, 0);
}
ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset) {
    FORWARD(ssize_t, pwritev, , );
    if (!watched_path(descriptor)) return real_pwritev(descriptor, pieces, count, offset);
    return gathered(descriptor, pieces, count, offset, 1);
}
ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off_t offset) {
    return pwritev(descriptor, pieces, count, offset);
}

int ftruncate(int descriptor, off_t length) {
    FORWARD(int, ftruncate, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_ftruncate(descriptor, length);
    struct call call = {.kind = CALL_TRUNCATE, .descriptor = descriptor, .path = path, .offset = length};
    GUARDED(int, call, real_ftruncate(descriptor, length), 0);
}
int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    FORWARD(int, fallocate, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_fallocate(descriptor, mode, offset, length);
    struct call call = {.kind = mode ? CALL_UNKNOWN : CALL_ALLOCATE, .descriptor = descriptor, .path = path,
                        .offset = offset + length};
    GUARDED(int, call, real_fallocate(descriptor, mode, offset, length), 0);
}

int fsync(int descriptor) {
    FORWARD(int, fsync, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_fsync(descriptor);
    struct call call = {.kind = CALL_FSYNC, .descriptor = descriptor, .path = path};
    GUARDED(int, call, real_fsync(descriptor), 0);
}

int fdatasync(int descriptor) {
    FORWARD(int, fdatasync, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_fdatasync(descriptor);
    struct call call = {.kind = CALL_FDATASYNC, .descriptor = descriptor, .path = path};
    GUARDED(int, call, real_fdatasync(descriptor), 0);
}

int sync_file_range(int descriptor, off64_t offset, off64_t length, unsigned flags) {
    FORWARD(int, sync_file_range, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_sync_file_range(descriptor, offset, length, flags);
    struct call call = {.kind = CALL_WRITEBACK, .descriptor = descriptor, .path = path};
    GUARDED(int, call, real_sync_file_range(descriptor, offset, length, flags), 0);
}

// MARK: names

#define BY_PATH(name, call_kind, type, parameters, arguments, first, second)                                           \
    int name parameters {                                                                                              \
        FORWARD(int, name, parameters, arguments);                                                                     \
        if (!is_watched(first) && !is_watched(second)) return real_##name arguments;                                   \
        struct call call = {.kind = call_kind, .descriptor = -1, .path = first, .second_path = second};                \
        GUARDED(int, call, real_##name arguments, 0);                                                                  \
    }

BY_PATH(rename, CALL_RENAME, int, (const char *from, const char *to), (from, to), from, to)
BY_PATH(link, CALL_LINK, int, (const char *from, const char *to), (from, to), from, to)
BY_PATH(unlink, CALL_UNLINK, int, (const char *path), (path), path, NULL)
BY_PATH(mkdir, CALL_MKDIR, int, (const char *path, mode_t mode), (path, mode), path, NULL)
BY_PATH(rmdir, CALL_RMDIR, int, (const char *path), (path), path, NULL)
BY_PATH(symlink, CALL_UNKNOWN, int, (const char *from, const char *to), (from, to), to, NULL)
BY_PATH(truncate, CALL_UNKNOWN, int, (const char *path, off_t length), (path, length), path, NULL)
BY_PATH(renameat2, CALL_UNKNOWN, int, (int d1, const char *from, int d2, const char *to, unsigned flags),
        (d1, from, d2, to, flags), from, to)
BY_PATH(renameat, CALL_UNKNOWN, int, (int d1, const char *from, int d2, const char *to), (d1, from, d2, to), from, to)
BY_PATH(linkat, CALL_UNKNOWN, int, (int d1, const char *from, int d2, const char *to, int flags),
        (d1, from, d2, to, flags), from, to)
BY_PATH(unlinkat, CALL_UNKNOWN, int, (int d1, const char *path, int flags), (d1, path, flags), path, NULL)
BY_PATH(mkdirat, CALL_UNKNOWN, int, (int d1, const char *path, mode_t mode), (d1, path, mode), path, NULL)
BY_PATH(stat, CALL_STAT, int, (const char *restrict path, struct stat *restrict s), (path, s), path, NULL)
BY_PATH(access, CALL_STAT, int, (const char *path, int mode), (path, mode), path, NULL)

int fstat(int descriptor, struct stat *status) {
    FORWARD(int, fstat, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_fstat(descriptor, status);
    struct call call = {.kind = CALL_STAT, .descriptor = descriptor, .path = path};
    GUARDED(int, call, real_fstat(descriptor, status), 0);
}

DIR *opendir(const char *path) {
    FORWARD(DIR *, opendir, , );
    if (!is_watched(path)) return real_opendir(path);
    struct call call = {.kind = CALL_LIST, .descriptor = -1, .path = path};
    return inject_decide(&call) == MAKE_CALL ? real_opendir(path) : NULL;
}

// MARK: locks, maps and the rest

int fcntl(int descriptor, int command, ...) {
    static int (*real)(int, int, ...);
    if (!real) real = real_function("fcntl");
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    const char *path = watched_path(descriptor);
    int is_lock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_GETLK;
    if (!path || !is_lock) return real(descriptor, command, argument);
    struct call call = {.kind = CALL_CONTROL, .descriptor = descriptor, .path = path};
    GUARDED(int, call, real(descriptor, command, argument), 0);
}

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    FORWARD(void *, mmap, , );
    const char *path = watched_path(descriptor);
    if (!path) return real_mmap(address, length, protection, flags, descriptor, offset);
    int is_writing = (protection & PROT_WRITE) && (flags & MAP_SHARED);
    struct call call = {.kind = CALL_MAP, .descriptor = descriptor, .path = path, .length = length,
                        .flags = is_writing};
    record_begin();
    if (inject_decide(&call) == FAIL_CALL) {
        int code = errno;
        record_end(&call, 0);
        errno = code;
        return MAP_FAILED;
    }
    void *result = real_mmap(address, length, protection, flags, descriptor, offset);
    record_end(&call, result != MAP_FAILED);
    return result;
}

/// Raw system calls: those that ask are passed on, all others would be changes that the record does not have.
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = real_function("syscall");
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    long result;
    if (number == SYS_futex && take_runtime_lock((int)a[1], (uint32_t *)a[0], &result)) return result;
    const long changing[] = {SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2, SYS_open, SYS_openat,
                             SYS_rename, SYS_renameat2, SYS_link, SYS_linkat, SYS_unlink, SYS_unlinkat, SYS_ftruncate,
                             SYS_fallocate, SYS_copy_file_range, SYS_sendfile, SYS_mkdir};
    for (size_t i = 0; shim_armed && i < sizeof changing / sizeof changing[0]; i++) {
        if (number != changing[i]) continue;
        struct call call = {.kind = CALL_UNKNOWN, .descriptor = -1, .path = "raw system call"};
        record_begin();
        record_end(&call, 1);
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    FORWARD(ssize_t, copy_file_range, , );
    if (watched_path(out)) {
        struct call call = {.kind = CALL_UNKNOWN, .descriptor = out, .path = watched_path(out)};
        record_begin();
        record_end(&call, 1);
    }
    return real_copy_file_range(in, from, out, to, length, flags);
}
