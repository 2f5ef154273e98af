#ifndef LORIF_CODEBOOK_H
#define LORIF_CODEBOOK_H

#include "kernels.h"

/// Levels by number of bits and code.
extern const float lorif_levels[5][16];
/// The positive cell boundaries by number of bits: 2^(bits-1) - 1 of them, ascending; the others mirror them, and 0.
extern const float lorif_thresholds[5][8];

#endif
