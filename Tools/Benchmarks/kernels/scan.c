// Rates of the scanning loops on random codes: see README.md.

#define _GNU_SOURCE

#include "kernels.h"
#include "scan.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { D1 = 64, D2 = 64, LAYERS = 16, MOST_PAGES = LAYERS * 8 * 2 };

static uint64_t state = 1;

static uint64_t next(void) {
    state += 0x9E3779B97F4A7C15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static float gaussian(void) {
    double radius = sqrt(-2 * log((double)(next() >> 11) * 0x1p-53 + 0x1p-60));
    return (float)(radius * cos(6.283185307179586 * (double)(next() >> 11) * 0x1p-53));
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/// The clock in Hz: a chain of additions takes one cycle each. On a virtual machine that shares its cores it varies.
static double clock_rate(void) {
    enum { STEPS = 1000000 };
    uint64_t x = 1;
    double start = now(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < STEPS; i += 1) {
        // The empty statements keep the compiler from adding up.
        x += 1;
        __asm__ volatile("" : "+r"(x));
        x += 1;
        __asm__ volatile("" : "+r"(x));
        x += 1;
        __asm__ volatile("" : "+r"(x));
        x += 1;
        __asm__ volatile("" : "+r"(x));
    }
    return 4.0 * STEPS / (now(CLOCK_THREAD_CPUTIME_ID) - start);
}

static int bits_of(int encoding) {
    switch (encoding) {
    case LORIF_Q4: return 4;
    case LORIF_Q3: return 3;
    case LORIF_Q2: return 2;
    default: return 1;
    }
}

enum kind { PAIRS, DENSE, WORD_PAIRS, WORD_CONTRACTION, TABLE_PAIRS, TABLE_DENSE, TABLE_CONTRACTION };

/// One measured case: every page of `pages` of `rows` rows, by one kernel, `rounds` times.
struct work {
    enum kind kind;
    const struct lorif_scans *scans;
    struct lorif_vectors pages[MOST_PAGES];
    int units, factors;
    size_t rows, queries, pairs;
    const float *a, *b;
    struct lorif_words words;
    struct lorif_word_matrices matrices;
    struct lorif_tables left[LAYERS], right[LAYERS];
    double multipliers[64];
    int components, with_bounds, rounds;
};

struct part {
    const struct work *work;
    size_t first, end;
    double processor_time, cycles;
};

static void *run(void *argument) {
    struct part *part = argument;
    double rate = clock_rate(), start = now(CLOCK_THREAD_CPUTIME_ID);
    const struct work *work = part->work;
    size_t stride = part->end - part->first;
    float *scores = calloc(work->queries * stride + 1, sizeof(float));
    float *bounds = work->with_bounds ? calloc(work->queries * stride + 1, sizeof(float)) : NULL;
    enum { BLOCK = 2048 };
    for (int round = 0; round < work->rounds; round += 1) {
        for (size_t row = part->first; row < part->end; row += BLOCK) {
            size_t end = part->end - row < BLOCK ? part->end : row + BLOCK, at = row - part->first;
            float *out = scores + at, *errors = bounds == NULL ? NULL : bounds + at;
            for (int unit = 0; unit < work->units; unit += 1) {
                const struct lorif_vectors *u = work->pages + unit * work->factors, *v = u + work->factors - 1;
                int layer = unit / work->components;
                switch (work->kind) {
                case PAIRS:
                    work->scans->pairs(
                        u, v, row, end, work->a, work->b, work->queries, work->pairs, out, stride);
                    break;
                case DENSE: work->scans->dense(u, row, end, work->a, work->queries, out, stride); break;
                case WORD_PAIRS:
                    work->scans->word_pairs(
                        u, v, row, end, &work->words, &work->words, work->queries, work->pairs, out, stride);
                    break;
                case WORD_CONTRACTION:
                    work->scans->word_contraction(
                        u, v, row, end, &work->matrices, work->queries, work->multipliers, out, errors, stride);
                    break;
                case TABLE_PAIRS:
                    work->scans->table_pairs(
                        u, v, row, end, work->left + layer, work->right + layer, work->queries, work->pairs,
                        work->multipliers, out, errors, stride);
                    break;
                case TABLE_DENSE:
                    work->scans->table_dense(
                        u, row, end, work->left + layer, work->queries, work->multipliers, out, errors, stride);
                    break;
                case TABLE_CONTRACTION:
                    work->scans->table_contraction(
                        u, v, row, end, work->left + layer, work->queries, work->multipliers, out, errors, stride);
                    break;
                }
            }
        }
    }
    volatile float sink = scores[0];
    (void)sink;
    free(scores);
    free(bounds);
    part->processor_time = now(CLOCK_THREAD_CPUTIME_ID) - start;
    part->cycles = part->processor_time * (rate + clock_rate()) / 2;
    return NULL;
}

/// Of one round, the best of a few: wall time, processor time of all threads together, and the latter in cycles.
struct times {
    double wall, processor, cycles;
};

static struct times seconds(struct work *work, int threads) {
    struct times best = {1e9, 1e9, 1e18};
    for (int attempt = 0; attempt < 5; attempt += 1) {
        pthread_t handles[16];
        struct part parts[16];
        double start = now(CLOCK_MONOTONIC);
        for (int thread = 0; thread < threads; thread += 1) {
            size_t share = work->rows / 32 / (size_t)threads * 32;
            size_t first = (size_t)thread * share;
            parts[thread] = (struct part){work, first, thread + 1 == threads ? work->rows : first + share, 0, 0};
            pthread_create(handles + thread, NULL, run, parts + thread);
        }
        double processor = 0, cycles = 0;
        for (int thread = 0; thread < threads; thread += 1) {
            pthread_join(handles[thread], NULL);
            processor += parts[thread].processor_time;
            cycles += parts[thread].cycles;
        }
        best.wall = fmin(best.wall, (now(CLOCK_MONOTONIC) - start) / work->rounds);
        best.processor = fmin(best.processor, processor / work->rounds);
        best.cycles = fmin(best.cycles, cycles / work->rounds);
    }
    return best;
}

static void measure(
    const struct lorif_kernels *tier, enum kind kind, int encoding, size_t rows, int layers, int components,
    size_t queries, size_t pairs, int wide, int with_bounds, const char *label) {
    static struct work work;
    work = (struct work){
        .kind = kind, .scans = tier->scans, .rows = rows, .queries = queries, .pairs = pairs,
        .components = components, .with_bounds = with_bounds, .rounds = 1};
    int dense = kind == DENSE || kind == TABLE_DENSE;
    work.factors = dense ? 1 : 2;
    work.units = layers * components;
    size_t length = dense ? D1 * D2 : D1, bytes = 0;
    for (int page = 0; page < work.units * work.factors; page += 1) {
        int scaled = encoding != LORIF_F32 && encoding != LORIF_BF16;
        size_t codes = lorif_codes_size(encoding, rows, length), size = codes + (scaled ? 2 * rows : 0);
        uint8_t *payload = malloc(size);
        for (size_t i = 0; i < size; i += 1) payload[i] = (uint8_t)(next() & 0x3F);
        bytes += size;
        work.pages[page] = lorif_vectors_of(encoding, payload, rows, length);
    }
    size_t vectors = kind == TABLE_CONTRACTION || kind == WORD_CONTRACTION ? queries * D2 : queries * (dense ? 1 : pairs);
    float *x = malloc(vectors * length * sizeof(float));
    for (size_t i = 0; i < vectors * length; i += 1) x[i] = gaussian();
    work.a = work.b = x;
    for (size_t query = 0; query < queries; query += 1) work.multipliers[query] = 1;
    double prepare = 0;
    int16_t *words = NULL;
    if (kind == WORD_PAIRS || kind == WORD_CONTRACTION) {
        size_t size = kind == WORD_PAIRS ? lorif_word_count(length) : lorif_word_matrix_count(D1, D2);
        size_t count = kind == WORD_PAIRS ? vectors : queries;
        words = aligned_alloc(64, count * size * sizeof(int16_t));
        float *factors = malloc(count * sizeof(float));
        double start = now(CLOCK_MONOTONIC);
        for (size_t i = 0; i < count; i += 1) {
            if (kind == WORD_PAIRS) {
                lorif_prepare_words(x + i * length, length, words + i * size, factors + i);
            } else {
                lorif_prepare_word_matrix(x + i * D1 * D2, D1, D2, words + i * size, work.multipliers + i);
            }
        }
        prepare = now(CLOCK_MONOTONIC) - start;
        work.words = (struct lorif_words){length, words, factors};
        work.matrices = (struct lorif_word_matrices){D1, D2, words};
    }
    if (kind >= TABLE_PAIRS) {
        int bits = bits_of(encoding);
        size_t size = lorif_table_bytes(bits, wide, length), blocks = lorif_block_count(bits, length);
        double start = now(CLOCK_MONOTONIC);
        for (int layer = 0; layer < layers; layer += 1) {
            uint8_t *entries = malloc(vectors * size);
            float *steps = malloc(vectors * blocks * sizeof(float)), *errors = malloc(vectors * sizeof(float));
            for (size_t vector = 0; vector < vectors; vector += 1) {
                lorif_prepare_table(
                    bits, wide, x + vector * length, length, 1, -2, D2 + 4, entries + vector * size,
                    steps + vector * blocks, errors + vector);
            }
            work.left[layer] = work.right[layer] =
                (struct lorif_tables){bits, wide, length, entries, steps, errors};
        }
        prepare = now(CLOCK_MONOTONIC) - start;
    }
    while (seconds(&work, 1).processor * work.rounds < 0.03) work.rounds *= 4;
    printf("%-9s%-34s", tier->name, label);
    for (int threads = 1; threads <= 2; threads += 1) {
        struct times time = seconds(&work, threads);
        printf(" | %6.2f GB/s %8.4f M rows/s", (double)bytes / time.wall * 1e-9, (double)rows / time.wall * 1e-6);
        printf(
            " (%6.2f %8.4f, %5.2f B/cycle)", (double)bytes / time.processor * 1e-9,
            (double)rows / time.processor * 1e-6, (double)bytes / time.cycles);
    }
    if (prepare > 0) printf(" | tables %.2f ms", prepare * 1e3);
    printf("\n");
    fflush(stdout);
    for (int page = 0; page < work.units * work.factors; page += 1) free((void *)work.pages[page].codes);
    for (int layer = 0; layer < layers && kind >= TABLE_PAIRS; layer += 1) {
        free((void *)work.left[layer].entries);
        free((void *)work.left[layer].steps);
        free((void *)work.left[layer].errors);
    }
    free(words);
    free((void *)work.words.factors);
    free(x);
}

int main(int count, char **arguments) {
    const char *filter = count > 1 ? arguments[1] : "";
    size_t tiers = lorif_tier_count();
    const char *names[] = {"", "f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1"};
    for (size_t index = tiers; index-- > 0;) {
        const struct lorif_kernels *tier = lorif_tier(index);
        if (tier == NULL || (index == 0 && tiers > 1 && count < 3)) continue;
        char label[80];
#define CASE(kind, encoding, rows, layers, components, queries, pairs, wide, with_bounds, ...)                         \
    snprintf(label, sizeof label, __VA_ARGS__);                                                                        \
    if (strstr(label, filter) != NULL) {                                                                               \
        measure(tier, kind, encoding, rows, layers, components, queries, pairs, wide, with_bounds, label);             \
    }
        for (int encoding = LORIF_F32; encoding <= LORIF_INT8; encoding += 1) {
            CASE(PAIRS, encoding, 1024, 1, 1, 1, 1, 0, 0, "pairs %s 1 pair in cache", names[encoding])
        }
        for (int encoding = LORIF_F16; encoding <= LORIF_INT8; encoding += 2) {
            for (size_t pairs = 1; pairs <= 16; pairs *= 2) {
                CASE(PAIRS, encoding, 65536, 16, 1, 1, pairs, 0, 0, "pairs %s %zu", names[encoding], pairs)
            }
            for (size_t queries = 1; queries <= 8; queries *= 2) {
                CASE(DENSE, encoding, 4096, 16, 1, queries, 1, 0, 0, "dense %s %zu queries", names[encoding], queries)
            }
        }
        CASE(WORD_PAIRS, LORIF_INT8, 1024, 1, 1, 1, 1, 0, 0, "words int8 1 pair in cache")
        for (size_t pairs = 1; pairs <= 16; pairs *= 2) {
            CASE(WORD_PAIRS, LORIF_INT8, 65536, 16, 1, 1, pairs, 0, 0, "words int8 %zu", pairs)
        }
        for (size_t queries = 1; queries <= 16; queries *= 4) {
            CASE(
                WORD_CONTRACTION, LORIF_INT8, 8192, 16, 1, queries, 1, 0, 1, "words contraction int8 %zu queries", queries)
        }
        for (int wide = 1; wide >= 0; wide -= 1) {
            const char *width = wide ? "wide" : "narrow";
            for (int encoding = LORIF_Q4; encoding <= LORIF_Q1; encoding += 1) {
                CASE(
                    TABLE_PAIRS, encoding, 16384, 16, 4, 1, 8, wide, 0, "pairs %s %s c=4, 8 pairs", width,
                    names[encoding])
                for (size_t queries = 1; queries <= 8; queries *= 8) {
                    CASE(
                        TABLE_DENSE, encoding, 16384, 16, 1, queries, 1, wide, 0, "dense %s %s %zu queries", width,
                        names[encoding], queries)
                }
            }
            CASE(TABLE_DENSE, LORIF_Q1, 256, 1, 1, 1, 1, wide, 0, "dense %s q1 in cache", width)
            CASE(TABLE_PAIRS, LORIF_Q2, 1024, 1, 1, 1, 8, wide, 0, "pairs %s q2 8 pairs in cache", width)
            CASE(TABLE_CONTRACTION, LORIF_Q2, 1024, 1, 1, 1, 1, wide, 0, "contraction %s q2 in cache", width)
            CASE(TABLE_PAIRS, LORIF_Q2, 16384, 16, 4, 1, 1, wide, 0, "pairs %s q2 c=4, 1 pair", width)
            CASE(TABLE_PAIRS, LORIF_Q2, 16384, 16, 4, 1, 8, wide, 1, "pairs %s q2 c=4, 8 pairs, bounds", width)
            CASE(TABLE_DENSE, LORIF_Q1, 16384, 16, 1, 1, 1, wide, 1, "dense %s q1, bounds", width)
            for (int encoding = LORIF_Q4; encoding <= LORIF_Q1; encoding += 1) {
                CASE(
                    TABLE_CONTRACTION, encoding, 4096, 16, 4, 1, 1, wide, 1, "contraction %s %s c=4, bounds", width,
                    names[encoding])
            }
        }
    }
    return 0;
}
