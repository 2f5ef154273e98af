// Reads files with some threads and adds up their words: what a scan of the same bytes can at most reach.
//
//     cc -O3 -march=native Tools/Benchmarks/reading/read.c -o read -pthread
//     ./read map|read|direct THREADS warm|cold FILE…
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, MOST_THREADS = 64 };

static size_t length;
static int file;
static const char *mapping;
static _Atomic size_t next;
static volatile uint64_t sums[MOST_THREADS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static uint64_t sum(const char *bytes, size_t count) {
    uint64_t lanes[16] = {0};
    for (size_t i = 0; i + 128 <= count; i += 128) {
        for (size_t lane = 0; lane < 16; lane += 1) {
            uint64_t word;
            memcpy(&word, bytes + i + 8 * lane, 8);
            lanes[lane] += word;
        }
    }
    uint64_t total = 0;
    for (size_t lane = 0; lane < 16; lane += 1) total += lanes[lane];
    return total;
}

static void *work(void *argument) {
    char *buffer = aligned_alloc(4096, PIECE);
    uint64_t total = 0;
    for (;;) {
        size_t offset = atomic_fetch_add(&next, PIECE);
        if (offset >= length) break;
        size_t count = length - offset < PIECE ? length - offset : PIECE;
        if (mapping != NULL) {
            total += sum(mapping + offset, count);
        } else {
            ssize_t found = pread(file, buffer, count, (off_t)offset);
            if (found > 0) total += sum(buffer, (size_t)found);
        }
    }
    sums[(size_t)argument] = total;
    free(buffer);
    return NULL;
}

int main(int count, char **words) {
    if (count < 5) return 2;
    int maps = strcmp(words[1], "map") == 0, direct = strcmp(words[1], "direct") == 0;
    size_t threads = (size_t)atoi(words[2]), bytes = 0;
    if (threads < 1 || threads > MOST_THREADS) return 2;
    for (int i = 4; strcmp(words[3], "cold") == 0 && i < count; i += 1) {
        int evicted = open(words[i], O_RDONLY);
        posix_fadvise(evicted, 0, 0, POSIX_FADV_DONTNEED);
        close(evicted);
    }
    double seconds = 0;
    for (int i = 4; i < count; i += 1) {
        file = open(words[i], O_RDONLY | (direct ? O_DIRECT : 0));
        struct stat status;
        if (file < 0 || fstat(file, &status) != 0) return 1;
        length = (size_t)status.st_size;
        bytes += length;
        double start = now();
        mapping = maps ? mmap(NULL, length, PROT_READ, MAP_SHARED, file, 0) : NULL;
        atomic_store(&next, 0);
        pthread_t workers[MOST_THREADS];
        for (size_t k = 0; k < threads; k += 1) pthread_create(&workers[k], NULL, work, (void *)k);
        for (size_t k = 0; k < threads; k += 1) pthread_join(workers[k], NULL);
        seconds += now() - start;
        close(file);
    }
    printf("%.6f\n", (double)bytes / seconds);
}
