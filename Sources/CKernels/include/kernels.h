#ifndef LORIF_KERNELS_H
#define LORIF_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/// Loops over numbers that BLAS lacks: number formats, low-bit codes, reductions.
///
/// The portable tier is the meaning; every other tier gives the same bits, but for row-major scores (scan.h). Pointers may be
/// unaligned; counts may be zero.
/// All multi-byte numbers are little-endian, and so must the machine be.

/// How a vector is stored; the values are those of Schema's Encoding.
enum lorif_encoding {
    LORIF_F32 = 1,
    LORIF_F16 = 2,
    LORIF_BF16 = 3,
    LORIF_INT8 = 4,
    LORIF_Q4 = 5,
    LORIF_Q3 = 6,
    LORIF_Q2 = 7,
    LORIF_Q1 = 8,
};

/// Rows whose low-bit codes are interleaved, and the bytes of one nibble group of such rows.
enum { LORIF_GROUP_ROWS = 32, LORIF_GROUP_BYTES = 16 };

/// What quantising a vector leaves for its scale: sums in eight interleaved lanes, element j to lane j mod 8.
struct lorif_code_sums {
    /// Σ value · level and Σ level².
    double correlation[8], energy[8];
    /// The largest distance of a code from the middle: 0 for the two smallest levels.
    uint32_t largest_cell;
};

struct lorif_scans;

/// The hot loops of one instruction-set tier.
struct lorif_kernels {
    /// The tier's name, for reports.
    const char *name;
    /// The tier's scanning loops (scan.h).
    const struct lorif_scans *scans;

    /// IEEE half and bfloat16 to f32; exact, signalling NaNs become quiet.
    void (*widen_f16)(const uint8_t *codes, size_t count, float *values);
    void (*widen_bf16)(const uint8_t *codes, size_t count, float *values);
    /// f32 to IEEE half and bfloat16, to nearest even; too large becomes infinite.
    void (*narrow_f16)(const float *values, size_t count, uint8_t *codes);
    void (*narrow_bf16)(const float *values, size_t count, uint8_t *codes);

    /// rows × length codes, row after row, times the row's scale.
    void (*decode_f16)(const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values);
    void (*decode_int8)(const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values);
    /// One vector: half of value · factor, at most ±65,504; factor is a power of two.
    void (*encode_f16)(const float *values, float factor, size_t count, uint8_t *codes);
    /// One vector: value / scale to the nearest integer, ties to even; the caller makes sure that it fits.
    void (*encode_int8)(const float *values, float scale, size_t count, uint8_t *codes);

    /// Part of one vector to codes: the nearest level of value · inverse, and adds to the sums. Every part
    /// but the last has
    /// a multiple of 8 numbers.
    void (*quantise)(
        int bits, const float *values, double inverse, size_t count, uint8_t *codes, struct lorif_code_sums *sums);
    /// One group of 1 to 32 rows of q4, q2, q1 (`plane`, `low` unused) or q3 (`plane` holds the two high
    /// bits, `low` the low one).
    void (*decode_group)(
        int bits, const uint8_t *plane, const uint8_t *low, const float *scales, size_t rows, size_t length,
        float *values);

    /// The largest magnitude, 0 of nothing; values are finite.
    float (*largest_magnitude)(const float *values, size_t count);
    /// The index of the first NaN or infinity, or `count`.
    size_t (*first_non_finite)(const float *values, size_t count);
    /// Σ x² in double: eight interleaved sums, lane j takes elements j, j + 8, …, then added pairwise
    /// (0,4)(1,5)(2,6)(3,7),
    /// (0,2)(1,3), (0,1).
    double (*sum_of_squares)(const float *values, size_t count);
    /// Σ_c Σ_i left[c, i] · (Σ_j matrix[i, j] · right[c, j]) in double: left is components × rows, right components × columns, of
    /// numbers that were f32. The inner sum as in sum_of_squares, the others in order, one for each component.
    double (*bilinear_form)(
        const float *matrix, size_t rows, size_t columns, const float *left, const double *right, size_t components);
};

/// The number of tiers compiled in, portable first, fastest last.
size_t lorif_tier_count(void);
/// The tier at that position, or NULL if this machine cannot run it.
const struct lorif_kernels *lorif_tier(size_t index);

/// The 2^bits levels of the Lloyd-Max quantiser of the standard normal density, ascending; bits is 1 to 4.
const float *lorif_codebook(int bits);

/// The scale column of a payload as f32: bfloat16 to f32.
float lorif_float_from_bf16(uint16_t bits);
/// The nearest bfloat16, ties to even; too large becomes infinite.
uint16_t lorif_bf16_nearest(float value);
/// The smallest bfloat16 not below a value that is not negative; above the largest finite one, infinity.
uint16_t lorif_bf16_rounded_up(double value);

/// Bytes of the codes of rows × length numbers, padded to a multiple of 8: where the scales start.
size_t lorif_codes_size(int encoding, size_t rows, size_t length);
/// Writes codes and scales; `payload` must be zero and lorif_codes_size + 2 · rows (if the encoding has
/// scales) bytes long.
void lorif_encode(
    const struct lorif_kernels *kernels, int encoding, const float *values, size_t rows, size_t length,
    uint8_t *payload);
/// Reads codes and scales of all rows.
void lorif_decode(
    const struct lorif_kernels *kernels, int encoding, const uint8_t *payload, size_t rows, size_t length,
    float *values);
/// Reads one row of `rows`.
void lorif_decode_row(
    const struct lorif_kernels *kernels, int encoding, const uint8_t *payload, size_t row, size_t rows, size_t length,
    float *values);

/// [n, d, c] to [c][n][d].
void lorif_components_apart(const float *values, size_t rows, size_t dimension, size_t rank, float *out);
/// [c][n][d] to [n, d, c].
void lorif_components_together(const float *values, size_t rows, size_t dimension, size_t rank, float *out);

#endif
