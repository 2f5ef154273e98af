#ifndef LORIF_SCAN_H
#define LORIF_SCAN_H

#include <stddef.h>
#include <stdint.h>

/// Loops that score the rows of vector pages where they lie, without writing decoded values anywhere.
///
/// Every function adds to scores[query · stride + row - first] for the rows first ..< end of one page (or of the two
/// pages of one component). What it adds to a row depends on that row alone, so a range may be cut anywhere.

/// One vector page: what page.md calls codes and scales.
struct lorif_vectors {
    /// NULL scales: the encoding has none.
    const uint8_t *codes, *scales;
    size_t rows, length;
    int encoding;
};

/// The pieces of a payload of the exact size.
struct lorif_vectors lorif_vectors_of(int encoding, const uint8_t *payload, size_t rows, size_t length);

/// Floats that one query vector of `length` numbers takes in the layout of the row-major loops: a multiple of 8.
size_t lorif_padded_length(size_t length);
/// One query vector in that layout: whole groups of 8 numbers, then the rest at the end of a last group of 8 whose
/// other numbers are zero, so that it meets the last 8 numbers of a row.
void lorif_pad_vector(const float *values, size_t length, float *padded);

/// Look-up tables of query vectors for low-bit codes.
///
/// The codes of a vector are read in look-ups of 4 bits: one coordinate of q4 or q3, two of q2, four of q1. For each
/// look-up a table has 16 entries: that group's share of the inner product of levels and query, divided by the
/// step of its block (LORIF_BLOCK_LOOKUPS look-ups), rounded. Entries are sums of an offset and a whole number:
/// wide ones lie in ±2047 and are stored as 16 low halves of 6 bits, then 16 high halves; narrow ones lie in ±31.
/// Halves of 6 bits are what lets four look-ups be added in a byte.
struct lorif_tables {
    int bits;
    int wide;
    size_t length;
    /// Vectors one after another, each lorif_table_bytes long.
    const uint8_t *entries;
    /// For each vector the steps of its blocks.
    const float *steps;
    /// For each vector a bound on |Σ step · whole numbers, as computed in f32, - exact inner product with the levels|.
    const float *errors;
};

enum {
    LORIF_BLOCK_LOOKUPS = 256,
    LORIF_WIDE_OFFSET = 2048,
    LORIF_NARROW_OFFSET = 32,
};

/// Look-ups of one vector of bits-bit codes, the blocks they form, and the bytes of its table.
size_t lorif_lookup_count(int bits, size_t length);
size_t lorif_block_count(int bits, size_t length);
size_t lorif_table_bytes(int bits, int wide, size_t length);

/// Fills one vector's table for the numbers values[i · stride] · 2^exponent.
///
/// `exponent` brings the largest magnitude below about 1; blocks that are smaller than 2^-100 count as zeros, their
/// magnitude as error. `error` is the bound above plus slack_steps · 2^-24 times the largest magnitude that the sum
/// can take: room for that many later roundings. Numbers that are not finite give NaN steps and errors.
void lorif_prepare_table(
    int bits, int wide, const float *values, size_t length, size_t stride, int exponent, size_t slack_steps,
    uint8_t *entries, float *steps, float *error);

/// The least e with every finite magnitude below 2^e; INT_MIN if all are zero.
int lorif_exponent(const float *values, size_t count);

/// Query vectors for int8 codes, in whole numbers: vector ≈ factor · 2^-28 · n, n = 2^15 · high + low, |n| ≤ 2^29.
///
/// Products of int8 codes with the halves are added up exactly; a number of the query is off by at most half a step,
/// 2^-29 of the power of two above the vector's largest magnitude.
struct lorif_words {
    size_t length;
    /// For each vector, for every 32 numbers: the high halves of those at even places, of those at odd places, then the
    /// low halves likewise. Numbers that do not fill up a group of 32 are at its end, so that they meet the last 32 codes
    /// of a row.
    const int16_t *halves;
    /// By vector, a power of two; NaN for a vector with numbers that are not finite.
    const float *factors;
};

/// Halves that one vector takes.
size_t lorif_word_count(size_t length);
void lorif_prepare_words(const float *values, size_t length, int16_t *halves, float *factor);

/// Query matrices P for factors in int8, in whole numbers: P ≈ multiplier · n, |n| ≤ 2^14.
struct lorif_word_matrices {
    size_t rows, columns;
    /// For each matrix, for every two rows and every column: the number of the first row, then of the second.
    /// Rows are filled up to a multiple of 2, columns to one of 64, with zeros.
    const int16_t *numbers;
};

/// Numbers that one matrix takes.
size_t lorif_word_matrix_count(size_t rows, size_t columns);
/// Fills one matrix from row-major values; `multiplier` is 0 for a matrix of zeros, NaN if a value is not finite.
void lorif_prepare_word_matrix(
    const float *values, size_t rows, size_t columns, int16_t *numbers, double *multiplier);

/// The scanning loops of one instruction-set tier.
///
/// Tables and words: sums of whole numbers, then f32 operations on each row by itself in a fixed order: every tier gives
/// the same bits. Row-major: tiers differ in the order of summation; each is within
/// (length + pairs + 8) · 2^-24 times the sum of the magnitudes of the products (of left and right for pairs).
struct lorif_scans {
    /// Encodings f32, f16, bf16: Σ over the query's pairs of (a · u) (b · v); a and b are padded vectors.
    void (*pairs)(
        const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end, const float *a,
        const float *b, size_t queries, size_t pairs, float *scores, size_t stride);
    /// Encodings f32, f16, bf16, int8: p · g; p are padded vectors.
    void (*dense)(
        const struct lorif_vectors *vectors, size_t first, size_t end, const float *p, size_t queries, float *scores,
        size_t stride);

    /// Encoding int8: Σ over the query's pairs of (a · u) (b · v). An inner product is within
    /// (length / 4096 + 8) · 2^-24 times the sum of the magnitudes of its terms, and half a step for each unit of
    /// a code's magnitude, of the exact one.
    void (*word_pairs)(
        const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
        const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs, float *scores,
        size_t stride);
    /// Encoding int8: uᵀ P v; bounds as below.
    void (*word_contraction)(
        const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
        const struct lorif_word_matrices *p, size_t queries, const double *multipliers, float *scores, float *bounds,
        size_t stride);

    /// Low-bit codes: multipliers[query] · Σ over the query's pairs of (a · u) (b · v). The errors of a and b allow for
    /// pairs + 4 roundings. If bounds is not NULL it gets, laid out as scores, what makes
    /// |score - exact score| ≤ bound remain true.
    void (*table_pairs)(
        const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
        const struct lorif_tables *a, const struct lorif_tables *b, size_t queries, size_t pairs,
        const double *multipliers, float *scores, float *bounds, size_t stride);
    /// Low-bit codes: multipliers[query] · p · g.
    void (*table_dense)(
        const struct lorif_vectors *vectors, size_t first, size_t end, const struct lorif_tables *p, size_t queries,
        const double *multipliers, float *scores, float *bounds, size_t stride);
    /// Low-bit codes: multipliers[query] · Σ over j of (p_j · u) v_j; each query has as many tables as v has
    /// coordinates, with errors that allow for that many + 4 roundings.
    void (*table_contraction)(
        const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
        const struct lorif_tables *p, size_t queries, const double *multipliers, float *scores, float *bounds,
        size_t stride);
};

#endif
