#ifndef LORIF_LOOKUP_H
#define LORIF_LOOKUP_H

#include "include/scan.h"
#include "tiers.h"

#include <math.h>
#include <string.h>

// What the tiers share of the table loops: where the codes of a group of rows are, and how a row's sum becomes a score.

static inline size_t row_group_count(size_t rows) {
    return rows / LORIF_GROUP_ROWS + (rows % LORIF_GROUP_ROWS != 0);
}

static inline int bits_per_code(int encoding) {
    switch (encoding) {
    case LORIF_Q4: return 4;
    case LORIF_Q3: return 3;
    case LORIF_Q2: return 2;
    default: return 1;
    }
}

/// The codes of one group of 32 rows: nibbles of 16 bytes; `low` is the plane of the low bit of q3.
struct group_codes {
    const uint8_t *plane, *low;
};

static inline struct group_codes codes_of_group(const struct lorif_vectors *vectors, int bits, size_t group) {
    size_t per_nibble = bits == 4 ? 1 : bits == 1 ? 4 : 2;
    size_t stride = (vectors->length / per_nibble + (vectors->length % per_nibble != 0)) * LORIF_GROUP_BYTES;
    struct group_codes codes = {vectors->codes + group * stride, NULL};
    if (bits == 3) {
        size_t low_stride = (vectors->length / 4 + (vectors->length % 4 != 0)) * LORIF_GROUP_BYTES;
        codes.low = vectors->codes + row_group_count(vectors->rows) * stride + group * low_stride;
    }
    return codes;
}

/// The level code of coordinate j from its look-up index: q3 looks up its high bits plus four times its low bit.
static inline unsigned code_of_index(int bits, unsigned index, size_t coordinate) {
    switch (bits) {
    case 4: return index;
    case 3: return (index & 3) << 1 | index >> 2;
    case 2: return index >> (coordinate % 2 * 2) & 3;
    default: return index >> (coordinate % 4) & 1;
    }
}

/// The sums of a run of whole groups of 32 rows that begins at row `base`, for one query: errors may be NULL.
struct row_sums {
    size_t base, rows;
    const float *sums, *errors;
};

static inline double scale_at(const uint8_t *scales, size_t row) {
    uint16_t bits;
    memcpy(&bits, scales + 2 * row, sizeof bits);
    uint32_t wide = (uint32_t)bits << 16;
    float scale;
    memcpy(&scale, &wide, sizeof scale);
    return (double)scale;
}

/// Adds sums times scales to the scores of the rows of first ..< end.
///
/// In double, where neither product nor scale can leave the range, so a score is rounded once, to f32. The bound
/// grows by the sum's error (`inflation` covers the roundings of its own computation), by that rounding
/// (half a place of the new score), and by its own roundings: 2^-22 of it and 2^-147, for subnormal numbers.
static inline void add_to_scores(
    struct row_sums from, size_t first, size_t end, const uint8_t *left_scales, const uint8_t *right_scales,
    double multiplier, double inflation, float *scores, float *bounds) {
    size_t start = from.base < first ? first - from.base : 0;
    size_t stop = from.base + from.rows > end ? end - from.base : from.rows;
    for (size_t i = start; i < stop; i += 1) {
        size_t row = from.base + i;
        double scale = multiplier * scale_at(left_scales, row);
        if (right_scales != NULL) scale *= scale_at(right_scales, row);
        float score = (float)((double)scores[row - first] + (double)from.sums[i] * scale);
        scores[row - first] = score;
        if (bounds == NULL) continue;
        double bound = (double)bounds[row - first] + (double)from.errors[i] * scale * inflation;
        bound += (double)fabsf(score) * (0x1p-24 * (1 + 0x1p-20)) + 0x1p-147;
        bounds[row - first] = (float)(bound * (1 + 0x1p-22));
    }
}

/// How much the f32 arithmetic of `terms` error terms may have lost of their sum.
static inline double inflation_of(size_t terms) {
    return 1 + (double)(terms + 8) * 0x1p-22;
}

#endif
