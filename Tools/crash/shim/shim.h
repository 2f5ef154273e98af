#ifndef LORIF_SHIM_H
#define LORIF_SHIM_H

// A library for LD_PRELOAD that stands between a program (liblmdb included) and the kernel's file operations.
//
//   intercept.c     one wrapper for each call: asks inject.c what to do, makes the call, tells record.c
//   record.c        writes down every call that changes a file below LORIF_SHIM_ROOT
//   inject.c        lets the n-th call fail, shortens it, or leaves it out
//   plant.c         bugs, to see whether the harnesses find them
//   fork_server.c   runs the program's main() in a forked child, for every request on a socket
//
// Everything is configured by environment variables, read by shim_arm() when main() is about to begin, so that what the
// dynamic loader does is neither recorded nor counted.

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum call_kind {
    CALL_OPEN = 1,
    CALL_CLOSE,
    CALL_READ,
    CALL_WRITE,
    CALL_TRUNCATE,
    CALL_ALLOCATE,
    CALL_RENAME,
    CALL_LINK,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_RMDIR,
    CALL_FSYNC,
    CALL_FDATASYNC,
    CALL_WRITEBACK, // sync_file_range: promises nothing
    CALL_MSYNC,
    CALL_MAP,
    CALL_STAT,
    CALL_LIST,
    CALL_CONTROL, // fcntl: locks
    CALL_OUTPUT,  // write to standard output
    CALL_UNKNOWN, // a call that may change files and is not modelled
    CALL_KIND_COUNT
};

struct call {
    enum call_kind kind;
    int descriptor;          // -1 for calls by path
    const char *path;        // of the descriptor, or as given
    const char *second_path; // of rename and link
    const void *bytes;       // of a write
    size_t length;
    int64_t offset; // of a write, truncation or allocation; -1: at the file position
    int flags;
};

enum verdict { MAKE_CALL, FAIL_CALL, LEAVE_OUT };

/// Reads the configuration, once; before it, calls are passed on.
void shim_arm(void);
extern int shim_armed;

/// Decides about a call: MAKE_CALL (`length` may have been shortened), FAIL_CALL (errno is set), LEAVE_OUT (pretend success).
enum verdict inject_decide(struct call *call);
void inject_arm(void);

/// Takes note of a call that was made and succeeded. `record_begin` and `record_end` keep order of log and calls the same.
void record_begin(void);
void record_end(const struct call *call, int succeeded);
void record_arm(void);

/// Planted bugs: what was read is replaced, a mode is widened, a call is left out.
void plant_unread(const char *path, void *bytes, size_t count, int64_t offset);
int plant_mode(int mode);
int plant_left_out(const struct call *call);

/// Where a fork server with arguments waits for requests.
void fork_at_first_access(void);

/// In a child of a fork server: does the operation on a lock of Swift's runtime, and is nonzero then.
int take_runtime_lock(int operation, uint32_t *word, long *result);

/// Whether a path is LORIF_SHIM_ROOT or below it.
int is_watched(const char *path);
/// What a descriptor was opened as; NULL if it is not watched.
const char *watched_path(int descriptor);

#endif
