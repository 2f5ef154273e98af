#define _GNU_SOURCE
#include "lorif_platform.h"

#include <errno.h>
#include <stdio.h>
#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <sys/vfs.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

void lorif_begin_writeback(int descriptor, int64_t offset, int64_t byte_count) {
#ifdef __linux__
    (void)sync_file_range(descriptor, offset, byte_count, SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor;
    (void)offset;
    (void)byte_count;
#endif
}

int lorif_allocate(int descriptor, int64_t byte_count) {
#ifdef __linux__
    // Not posix_fallocate: where the file system cannot, it writes into a file that others have mapped.
    int result;
    do {
        result = fallocate(descriptor, 0, 0, byte_count);
    } while (result != 0 && errno == EINTR);
    return result == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -1;
#else
    (void)descriptor;
    (void)byte_count;
    return 0;
#endif
}

void lorif_keep_freed_buffers(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

int lorif_open_direct(int descriptor) {
#ifdef __linux__
    // By descriptor: the file may have lost its name since, and another may have it.
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
#else
    (void)descriptor;
    errno = EINVAL;
    return -1;
#endif
}

int lorif_file_system(const char *path, uint64_t *kind, uint64_t *available_byte_count) {
#ifdef __linux__
    struct statfs status;
    if (statfs(path, &status) != 0) return -1;
    // Numbers of 32 bits, which some kinds have with the highest bit set.
    *kind = (uint32_t)status.f_type;
    *available_byte_count = (uint64_t)status.f_bavail * (uint64_t)status.f_bsize;
    return 0;
#else
    (void)path;
    (void)kind;
    (void)available_byte_count;
    errno = ENOSYS;
    return -1;
#endif
}
