#define _GNU_SOURCE
#include "lorif_platform.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// Slots of live mappings. The handler reads them without a lock: a slot is published by its length, last, and withdrawn
// first; begin is only ever used together with a length that was read after it.
enum { SLOT_COUNT = 65536 };

struct slot {
    _Atomic uintptr_t begin;
    _Atomic size_t length;
    _Atomic int faulted;
};

static struct slot slots[SLOT_COUNT];
static _Atomic int used_slot_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static int is_installed;

/// A mapped file lost its pages: an empty page takes the place of the missing one, and the mapping is marked, so that whoever
/// reads it finds out by the mark before anything is done with what was read. Anything else goes to the handler before.
static void handle(int signal_number, siginfo_t *information, void *context) {
    int error = errno;
    uintptr_t address = (uintptr_t)information->si_addr;
    int count = atomic_load(&used_slot_count);
    for (int i = 0; i < count; i += 1) {
        size_t length = atomic_load(&slots[i].length);
        uintptr_t begin = atomic_load(&slots[i].begin);
        if (length == 0 || address < begin || address - begin >= length) continue;
        atomic_store(&slots[i].faulted, 1);
        long page = sysconf(_SC_PAGESIZE);
        void *start = (void *)(address & ~(uintptr_t)(page - 1));
        void *found = mmap(start, (size_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (found == start) {
            errno = error;
            return;
        }
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal_number, information, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal_number);
    } else {
        // Returning runs the instruction again, now with the default action.
        signal(SIGBUS, SIG_DFL);
    }
    errno = error;
}

int lorif_map_file(int descriptor, size_t byte_count, const void **address) {
    void *begin = mmap(NULL, byte_count, PROT_READ, MAP_SHARED, descriptor, 0);
    if (begin == MAP_FAILED) return -1;
    pthread_mutex_lock(&lock);
    if (!is_installed) {
        struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
        sigemptyset(&action.sa_mask);
        is_installed = sigaction(SIGBUS, &action, &previous) == 0;
    }
    int slot = -1;
    for (int i = 0; i < SLOT_COUNT && is_installed; i += 1) {
        if (atomic_load(&slots[i].length) == 0) {
            slot = i;
            break;
        }
    }
    if (slot >= 0) {
        atomic_store(&slots[slot].begin, (uintptr_t)begin);
        atomic_store(&slots[slot].faulted, 0);
        atomic_store(&slots[slot].length, byte_count);
        if (slot >= atomic_load(&used_slot_count)) atomic_store(&used_slot_count, slot + 1);
    }
    pthread_mutex_unlock(&lock);
    if (slot < 0) {
        munmap(begin, byte_count);
        errno = ENOMEM;
        return -1;
    }
    *address = begin;
    return slot;
}

void lorif_unmap_file(int slot) {
    pthread_mutex_lock(&lock);
    void *begin = (void *)atomic_load(&slots[slot].begin);
    size_t length = atomic_load(&slots[slot].length);
    munmap(begin, length);
    atomic_store(&slots[slot].length, 0);
    pthread_mutex_unlock(&lock);
}

int lorif_mapping_has_faulted(int slot) { return atomic_load(&slots[slot].faulted); }

int64_t lorif_resident_byte_count(int descriptor, int64_t offset, int64_t byte_count) {
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
    struct {
        uint64_t offset, length;
    } range = {(uint64_t)offset, (uint64_t)byte_count};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } state;
    if (syscall(SYS_cachestat, (unsigned)descriptor, &range, &state, 0u) != 0) return -1;
    int64_t resident = (int64_t)state.cached * sysconf(_SC_PAGESIZE);
    return resident < byte_count ? resident : byte_count;
}
