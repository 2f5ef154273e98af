#ifndef LORIF_WORDS_H
#define LORIF_WORDS_H

#include "lookup.h"

// What the tiers share of the loops in whole numbers.

enum {
    /// Numbers of a vector that meet one register of codes.
    WORD_GROUP = 32,
    /// Codes whose products with halves (at most 2^14 · 2^7, in lanes of an eighth) are surely below 2^31 in sum.
    WORD_BLOCK = 4096,
    /// Rows of a matrix for which the same holds of one column's sum.
    MATRIX_BLOCK = 512,
    /// Columns of a matrix that are added up at once.
    MATRIX_COLUMNS = 64,
};

/// What a score in whole numbers may be off, in units of |u| |v|, sums of codes' magnitudes: half a step for every number of
/// P, and 2^-24 of at most 2^14 for each rounding of f32: of each block's sum, its product and its addition, then of the
/// additions of the lanes.
static inline float word_matrix_error(size_t rows, size_t columns) {
    size_t roundings = (rows / MATRIX_BLOCK + 1) * (columns / 8 + 1) + 8;
    return (float)(0.5 + (double)roundings * 0x1p-10) * (1 + 0x1p-20f);
}

#endif
