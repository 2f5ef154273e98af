#include "codebook.h"
#include "tiers.h"

#include <math.h>
#include <string.h>

// A product and a sum must round as written, or tiers and machines would differ in the last bit.
#pragma STDC FP_CONTRACT OFF

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "payloads are read in place as little-endian");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE single and double");

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t load16(const uint8_t *bytes) {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline void store16(uint8_t *bytes, uint16_t value) {
    memcpy(bytes, &value, sizeof value);
}

static inline float float_from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 0x1F;
    uint32_t mantissa = half & 0x3FF;
    if (exponent == 31) return float_of(sign | 0x7F800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent != 0) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    // A subnormal is a whole number of 2^-24, which is exact in f32.
    float magnitude = (float)mantissa * 0x1p-24f;
    return float_of(sign | bits_of(magnitude));
}

static inline uint16_t half_from_float(float value) {
    uint32_t bits = bits_of(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return sign | 0x7E00 | (magnitude >> 13 & 0x3FF);
    // 65,520 is the midpoint of the largest half and the next power of two; ties go to the even one, which is infinite.
    if (magnitude >= 0x477FF000) return sign | 0x7C00;
    if (magnitude < 0x38800000) {
        // Below 2^-14 halves are whole numbers of 2^-24: adding 0.5 puts the last place of f32 there, and rounds.
        float shifted = float_of(magnitude) + 0.5f;
        return sign | (uint16_t)(bits_of(shifted) - 0x3F000000);
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return sign | (uint16_t)((rounded >> 13) - (112 << 10));
}

float lorif_float_from_bf16(uint16_t bits) {
    return float_of((uint32_t)bits << 16);
}

static inline float widened_bf16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    if ((bits & 0x7FFFFFFF) > 0x7F800000) bits |= 0x400000;
    return float_of(bits);
}

uint16_t lorif_bf16_nearest(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t lorif_bf16_rounded_up(double value) {
    if (!(value > 0)) return 0;
    // Truncating the nearest f32 is at most two steps low; the comparison in double decides.
    float near = value > 0x1.fffffep127 ? 0x1.fffffep127f : (float)value;
    uint16_t bits = (uint16_t)(bits_of(near) >> 16);
    while ((double)lorif_float_from_bf16(bits) < value) bits += 1;
    return bits;
}

static void widen_f16(const uint8_t *codes, size_t count, float *values) {
    for (size_t i = 0; i < count; i += 1) values[i] = float_from_half(load16(codes + 2 * i));
}

static void widen_bf16(const uint8_t *codes, size_t count, float *values) {
    for (size_t i = 0; i < count; i += 1) values[i] = widened_bf16(load16(codes + 2 * i));
}

static void narrow_f16(const float *values, size_t count, uint8_t *codes) {
    for (size_t i = 0; i < count; i += 1) store16(codes + 2 * i, half_from_float(values[i]));
}

static void narrow_bf16(const float *values, size_t count, uint8_t *codes) {
    for (size_t i = 0; i < count; i += 1) store16(codes + 2 * i, lorif_bf16_nearest(values[i]));
}

static void decode_f16(const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values) {
    for (size_t row = 0; row < rows; row += 1) {
        for (size_t i = 0; i < length; i += 1) {
            values[row * length + i] = scales[row] * float_from_half(load16(codes + 2 * (row * length + i)));
        }
    }
}

static void decode_int8(const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values) {
    for (size_t row = 0; row < rows; row += 1) {
        for (size_t i = 0; i < length; i += 1) {
            values[row * length + i] = scales[row] * (float)(int8_t)codes[row * length + i];
        }
    }
}

static void encode_f16(const float *values, float factor, size_t count, uint8_t *codes) {
    for (size_t i = 0; i < count; i += 1) {
        float scaled = values[i] * factor;
        if (scaled > 65504.0f) scaled = 65504.0f;
        if (scaled < -65504.0f) scaled = -65504.0f;
        store16(codes + 2 * i, half_from_float(scaled));
    }
}

static void encode_int8(const float *values, float scale, size_t count, uint8_t *codes) {
    // Adding 1.5 · 2^23 leaves no place for a fraction, so the sum rounds to an integer, ties to even, without the
    // library's rounding function; its low byte is the code.
    for (size_t i = 0; i < count; i += 1) codes[i] = (uint8_t)bits_of(values[i] / scale + 0x1.8p23f);
}

/// The bits of coordinate `coordinate` of row `row` in a plane of `bits` bits per coordinate.
static inline unsigned code_in_plane(const uint8_t *plane, int bits, size_t row, size_t coordinate) {
    size_t per_nibble = (size_t)(4 / bits);
    unsigned byte = plane[coordinate / per_nibble * LORIF_GROUP_BYTES + row % LORIF_GROUP_BYTES];
    unsigned nibble = row < LORIF_GROUP_BYTES ? byte & 15 : byte >> 4;
    return nibble >> (coordinate % per_nibble * (size_t)bits) & ((1u << bits) - 1);
}

void lorif_decode_group_row(
    int bits, const uint8_t *plane, const uint8_t *low, size_t row, size_t start, float scale, size_t length,
    float *values) {
    const float *levels = lorif_levels[bits];
    for (size_t i = start; i < length; i += 1) {
        unsigned code = bits == 3
            ? code_in_plane(plane, 2, row, i) << 1 | code_in_plane(low, 1, row, i)
            : code_in_plane(plane, bits, row, i);
        values[i] = scale * levels[code];
    }
}

static void decode_group(
    int bits, const uint8_t *plane, const uint8_t *low, const float *scales, size_t rows, size_t length,
    float *values) {
    for (size_t row = 0; row < rows; row += 1) {
        lorif_decode_group_row(bits, plane, low, row, 0, scales[row], length, values + row * length);
    }
}

static void quantise(
    int bits, const float *values, double inverse, size_t count, uint8_t *codes, struct lorif_code_sums *sums) {
    uint32_t half = 1u << (bits - 1);
    for (size_t i = 0; i < count; i += 1) {
        float x = (float)((double)values[i] * inverse);
        uint32_t cell = 0;
        for (uint32_t k = 0; k + 1 < half; k += 1) cell += fabsf(x) >= lorif_thresholds[bits][k];
        // Codes ascend with the value: half + cell for positive numbers and zeros, its mirror image for negative ones.
        uint32_t code = x < 0 ? half - 1 - cell : half + cell;
        double level = lorif_levels[bits][code];
        sums->correlation[i % 8] += (double)values[i] * level;
        sums->energy[i % 8] += level * level;
        if (cell > sums->largest_cell) sums->largest_cell = cell;
        codes[i] = (uint8_t)code;
    }
}

static float largest_magnitude(const float *values, size_t count) {
    float largest = 0;
    for (size_t i = 0; i < count; i += 1) {
        float magnitude = fabsf(values[i]);
        if (magnitude > largest) largest = magnitude;
    }
    return largest;
}

static size_t first_non_finite(const float *values, size_t count) {
    for (size_t i = 0; i < count; i += 1) {
        if ((bits_of(values[i]) & 0x7F800000) == 0x7F800000) return i;
    }
    return count;
}

static double sum_of_squares(const float *values, size_t count) {
    double lanes[8] = {0};
    for (size_t i = 0; i < count; i += 1) lanes[i % 8] += (double)values[i] * (double)values[i];
    for (size_t width = 4; width > 0; width /= 2) {
        for (size_t lane = 0; lane < width; lane += 1) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

static double bilinear_form(
    const float *matrix, size_t rows, size_t columns, const float *left, const double *right, size_t components) {
    double sum = 0;
    for (size_t c = 0; c < components; c += 1) {
        double total = 0;
        for (size_t i = 0; i < rows; i += 1) {
            double lanes[8] = {0};
            for (size_t j = 0; j < columns; j += 1) lanes[j % 8] += matrix[i * columns + j] * right[c * columns + j];
            for (size_t width = 4; width > 0; width /= 2) {
                for (size_t lane = 0; lane < width; lane += 1) lanes[lane] += lanes[lane + width];
            }
            total += left[c * rows + i] * lanes[0];
        }
        sum += total;
    }
    return sum;
}

const struct lorif_kernels lorif_portable = {
    .name = "portable",
    .scans = &lorif_scans_portable,
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .decode_f16 = decode_f16,
    .decode_int8 = decode_int8,
    .encode_f16 = encode_f16,
    .encode_int8 = encode_int8,
    .quantise = quantise,
    .decode_group = decode_group,
    .largest_magnitude = largest_magnitude,
    .first_non_finite = first_non_finite,
    .sum_of_squares = sum_of_squares,
    .bilinear_form = bilinear_form,
};
