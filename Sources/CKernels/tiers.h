#ifndef LORIF_TIERS_H
#define LORIF_TIERS_H

#include "kernels.h"

#if defined(__x86_64__)
#define LORIF_X86 1
extern const struct lorif_kernels lorif_avx2;
#endif

extern const struct lorif_kernels lorif_portable;

/// Coordinates start..<length of row `row` of one group; `values` is that row. Also the tail of every faster tier.
void lorif_decode_group_row(
    int bits, const uint8_t *plane, const uint8_t *low, size_t row, size_t start, float scale, size_t length,
    float *values);

#endif
