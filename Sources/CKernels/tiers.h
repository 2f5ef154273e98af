#ifndef LORIF_TIERS_H
#define LORIF_TIERS_H

#include "kernels.h"
#include "scan.h"

#if defined(__x86_64__)
#define LORIF_X86 1
extern const struct lorif_kernels lorif_avx2;
extern const struct lorif_scans lorif_scans_avx2;

/// The loops of lorif_scans_avx2 that are not in its file; they are documented there.
void lorif_word_pairs_avx2(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs, float *scores,
    size_t stride);
void lorif_word_contraction_avx2(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_word_matrices *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride);
void lorif_table_pairs_avx2(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_tables *a, const struct lorif_tables *b, size_t queries, size_t pairs,
    const double *multipliers, float *scores, float *bounds, size_t stride);
void lorif_table_dense_avx2(
    const struct lorif_vectors *vectors, size_t first, size_t end, const struct lorif_tables *p, size_t queries,
    const double *multipliers, float *scores, float *bounds, size_t stride);
void lorif_table_contraction_avx2(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_tables *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride);
#endif

extern const struct lorif_kernels lorif_portable;
extern const struct lorif_scans lorif_scans_portable;

/// The same of lorif_scans_portable.
void lorif_word_pairs_portable(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs, float *scores,
    size_t stride);
void lorif_word_contraction_portable(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_word_matrices *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride);

/// Coordinates start..<length of row `row` of one group; `values` is that row. Also the tail of every faster tier.
void lorif_decode_group_row(
    int bits, const uint8_t *plane, const uint8_t *low, size_t row, size_t start, float scale, size_t length,
    float *values);

#endif
