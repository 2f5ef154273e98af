#include "codebook.h"
#include "tiers.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/// The bits of one plane per coordinate; q3 is a plane of 2 and a plane of 1.
static int bits_of_encoding(int encoding) {
    switch (encoding) {
    case LORIF_Q4: return 4;
    case LORIF_Q3: return 3;
    case LORIF_Q2: return 2;
    default: return 1;
    }
}

/// Bytes of one plane of one group of 32 rows.
static size_t plane_stride(int plane_bits, size_t length) {
    size_t per_nibble = (size_t)(4 / plane_bits);
    return (length / per_nibble + (length % per_nibble != 0)) * LORIF_GROUP_BYTES;
}

static size_t group_count(size_t rows) {
    return rows / LORIF_GROUP_ROWS + (rows % LORIF_GROUP_ROWS != 0);
}

size_t lorif_codes_size(int encoding, size_t rows, size_t length) {
    size_t size;
    switch (encoding) {
    case LORIF_F32: size = rows * length * 4; break;
    case LORIF_F16:
    case LORIF_BF16: size = rows * length * 2; break;
    case LORIF_INT8: size = rows * length; break;
    case LORIF_Q3: size = group_count(rows) * (plane_stride(2, length) + plane_stride(1, length)); break;
    default: size = group_count(rows) * plane_stride(bits_of_encoding(encoding), length); break;
    }
    return (size + 7) / 8 * 8;
}

static void put_scale(uint8_t *scales, size_t row, uint16_t scale) {
    memcpy(scales + 2 * row, &scale, sizeof scale);
}

static float get_scale(const uint8_t *scales, size_t row) {
    uint16_t scale;
    memcpy(&scale, scales + 2 * row, sizeof scale);
    return lorif_float_from_bf16(scale);
}

/// The exponent e of the power-of-two scale 2^e that brings the largest magnitude's exponent, after rounding
/// to the 11 bits of a
/// half, to 15, the top binade: then a vector of halves loses nothing, not even a subnormal beside 65,504.
///
/// At least -126, the smallest normal bfloat16: below it every f32 is exact anyway (its last place 2^-149 becomes
/// 2^-23). At most 112: above that the code saturates at 65,504, which is within 2^-11 of the largest f32.
static int half_scale_exponent(float largest) {
    int exponent;
    float fraction = frexpf(largest, &exponent);
    if (fraction >= 1.0f - 0x1p-12f) exponent += 1;
    exponent -= 16;
    if (exponent < -126) return -126;
    return exponent > 112 ? 112 : exponent;
}

static void encode_f16(
    const struct lorif_kernels *kernels, const float *values, size_t rows, size_t length, uint8_t *codes,
    uint8_t *scales) {
    for (size_t row = 0; row < rows; row += 1) {
        const float *vector = values + row * length;
        float largest = kernels->largest_magnitude(vector, length);
        int exponent = half_scale_exponent(largest);
        // The codes of a zero vector keep the signs of its zeros.
        kernels->encode_f16(vector, largest > 0 ? ldexpf(1, -exponent) : 1, length, codes + 2 * row * length);
        put_scale(scales, row, largest > 0 ? lorif_bf16_nearest(ldexpf(1, exponent)) : 0);
    }
}

static void encode_int8(
    const struct lorif_kernels *kernels, const float *values, size_t rows, size_t length, uint8_t *codes,
    uint8_t *scales) {
    for (size_t row = 0; row < rows; row += 1) {
        const float *vector = values + row * length;
        float largest = kernels->largest_magnitude(vector, length);
        // Rounded up, so that no code exceeds 127; 127 · scale cannot overflow (the largest f32 gets code 126).
        uint16_t scale = lorif_bf16_rounded_up((double)largest / 127);
        put_scale(scales, row, scale);
        if (scale != 0) kernels->encode_int8(vector, lorif_float_from_bf16(scale), length, codes + row * length);
    }
}

/// The scale of a row of codes: least squares for the codes chosen, as the nearest bfloat16, but never so
/// large that a value
/// overflows.
static uint16_t code_scale(double correlation, double energy, float largest_level) {
    if (!(energy > 0) || !(correlation > 0)) return 0;
    double optimum = correlation / energy;
    uint16_t scale = optimum > 0x1.fep127 ? 0x7F7F : lorif_bf16_nearest((float)optimum);
    while (!isfinite(lorif_float_from_bf16(scale) * largest_level)) scale -= 1;
    return scale;
}

static double total(const double lanes[8]) {
    double sum = 0;
    for (size_t lane = 0; lane < 8; lane += 1) sum += lanes[lane];
    return sum;
}

/// Coordinates of a group that are quantised before they are packed; the codes stay in the first-level cache.
enum { CHUNK = 256 };

/// Packs the codes of `count` coordinates of a group into a plane of `bits` bits: bits `shift`... of each code.
static void pack_plane(
    uint8_t codes[LORIF_GROUP_ROWS][CHUNK], size_t count, int bits, int shift, uint8_t *plane) {
    size_t per_nibble = (size_t)(4 / bits);
    size_t nibbles = count / per_nibble + (count % per_nibble != 0);
    unsigned mask = (1u << bits) - 1;
    for (size_t row = 0; row < LORIF_GROUP_BYTES; row += 1) {
        for (size_t nibble = 0; nibble < nibbles; nibble += 1) {
            unsigned byte = 0;
            for (size_t k = 0; k < per_nibble; k += 1) {
                unsigned low = codes[row][nibble * per_nibble + k] >> shift & mask;
                unsigned high = codes[row + LORIF_GROUP_BYTES][nibble * per_nibble + k] >> shift & mask;
                byte |= (low | high << 4) << (k * (size_t)bits);
            }
            plane[nibble * LORIF_GROUP_BYTES + row] = (uint8_t)byte;
        }
    }
}

/// Encodes one group of up to 32 rows; `low` is the second plane of q3.
static void encode_group(
    const struct lorif_kernels *kernels, int bits, const float *values, size_t rows, size_t length, uint8_t *plane,
    uint8_t *low, uint8_t *scales) {
    struct lorif_code_sums sums[LORIF_GROUP_ROWS] = {0};
    double inverses[LORIF_GROUP_ROWS];
    for (size_t row = 0; row < rows; row += 1) {
        double square = kernels->sum_of_squares(values + row * length, length) / (double)length;
        // The instruction itself: sqrt() may call the mathematics library for errno's sake, which nothing
        // else here needs.
        inverses[row] = square > 0 ? 1 / __builtin_elementwise_sqrt(square) : 0;
    }
    uint8_t codes[LORIF_GROUP_ROWS][CHUNK];
    for (size_t start = 0; start < length; start += CHUNK) {
        size_t count = length - start < CHUNK ? length - start : CHUNK;
        // Rows past the last, and coordinates past the last of a nibble, are zero codes.
        memset(codes, 0, sizeof codes);
        for (size_t row = 0; row < rows; row += 1) {
            kernels->quantise(bits, values + row * length + start, inverses[row], count, codes[row], sums + row);
        }
        size_t offset = start * LORIF_GROUP_BYTES;
        if (bits == 3) {
            pack_plane(codes, count, 2, 1, plane + offset / 2);
            pack_plane(codes, count, 1, 0, low + offset / 4);
        } else {
            pack_plane(codes, count, bits, 0, plane + offset * (size_t)bits / 4);
        }
    }
    for (size_t row = 0; row < rows; row += 1) {
        float largest_level = lorif_levels[bits][(1u << (bits - 1)) + sums[row].largest_cell];
        put_scale(scales, row, code_scale(total(sums[row].correlation), total(sums[row].energy), largest_level));
    }
}

static void encode_codes(
    const struct lorif_kernels *kernels, int bits, const float *values, size_t rows, size_t length, uint8_t *codes,
    uint8_t *scales) {
    if (length == 0) return;
    size_t stride = plane_stride(bits == 3 ? 2 : bits, length);
    size_t low_stride = bits == 3 ? plane_stride(1, length) : 0;
    uint8_t *low = codes + group_count(rows) * stride;
    for (size_t row = 0; row < rows; row += LORIF_GROUP_ROWS) {
        size_t group = row / LORIF_GROUP_ROWS;
        size_t here = rows - row < LORIF_GROUP_ROWS ? rows - row : LORIF_GROUP_ROWS;
        encode_group(
            kernels, bits, values + row * length, here, length, codes + group * stride, low + group * low_stride,
            scales + 2 * row);
    }
}

void lorif_encode(
    const struct lorif_kernels *kernels, int encoding, const float *values, size_t rows, size_t length,
    uint8_t *payload) {
    uint8_t *scales = payload + lorif_codes_size(encoding, rows, length);
    switch (encoding) {
    case LORIF_F32:
        if (rows * length > 0) memcpy(payload, values, rows * length * 4);
        break;
    case LORIF_F16: encode_f16(kernels, values, rows, length, payload, scales); break;
    case LORIF_BF16:
        kernels->narrow_bf16(values, rows * length, payload);
        // Finite stays finite: what rounds to infinity becomes the largest bfloat16, which is nearer than 2^-8.
        if (kernels->largest_magnitude(values, rows * length) < 0x1.fep127f) break;
        for (size_t i = 0; i < rows * length; i += 1) {
            if ((payload[2 * i + 1] & 0x7F) == 0x7F && payload[2 * i] == 0x80) payload[2 * i] = 0x7F;
        }
        break;
    case LORIF_INT8: encode_int8(kernels, values, rows, length, payload, scales); break;
    default: encode_codes(kernels, bits_of_encoding(encoding), values, rows, length, payload, scales); break;
    }
}

/// Decodes rows first..<end, which for interleaved codes start at a group.
static void decode_rows(
    const struct lorif_kernels *kernels, int encoding, const uint8_t *payload, size_t first, size_t end, size_t rows,
    size_t length, float *values) {
    const uint8_t *scale_bytes = payload + lorif_codes_size(encoding, rows, length);
    size_t count = end - first;
    if (count == 0 || length == 0) return;
    if (encoding == LORIF_F32) {
        memcpy(values, payload + first * length * 4, count * length * 4);
        return;
    }
    if (encoding == LORIF_BF16) {
        kernels->widen_bf16(payload + first * length * 2, count * length, values);
        return;
    }
    int bits = bits_of_encoding(encoding);
    size_t stride = plane_stride(bits == 3 ? 2 : bits, length);
    size_t low_stride = bits == 3 ? plane_stride(1, length) : 0;
    const uint8_t *low = payload + group_count(rows) * stride;
    for (size_t row = first; row < end; row += LORIF_GROUP_ROWS) {
        size_t here = end - row < LORIF_GROUP_ROWS ? end - row : LORIF_GROUP_ROWS;
        float scales[LORIF_GROUP_ROWS];
        for (size_t i = 0; i < here; i += 1) scales[i] = get_scale(scale_bytes, row + i);
        float *out = values + (row - first) * length;
        switch (encoding) {
        case LORIF_F16: kernels->decode_f16(payload + row * length * 2, scales, here, length, out); break;
        case LORIF_INT8: kernels->decode_int8(payload + row * length, scales, here, length, out); break;
        default: {
            size_t group = row / LORIF_GROUP_ROWS;
            kernels->decode_group(bits, payload + group * stride, low + group * low_stride, scales, here, length, out);
        }
        }
    }
}

void lorif_decode(
    const struct lorif_kernels *kernels, int encoding, const uint8_t *payload, size_t rows, size_t length,
    float *values) {
    decode_rows(kernels, encoding, payload, 0, rows, rows, length, values);
}

void lorif_decode_row(
    const struct lorif_kernels *kernels, int encoding, const uint8_t *payload, size_t row, size_t rows, size_t length,
    float *values) {
    if (encoding == LORIF_F32 || encoding == LORIF_BF16 || encoding == LORIF_F16 || encoding == LORIF_INT8) {
        decode_rows(kernels, encoding, payload, row, row + 1, rows, length, values);
        return;
    }
    int bits = bits_of_encoding(encoding);
    size_t stride = plane_stride(bits == 3 ? 2 : bits, length);
    size_t low_stride = bits == 3 ? plane_stride(1, length) : 0;
    size_t group = row / LORIF_GROUP_ROWS;
    float scale = get_scale(payload + lorif_codes_size(encoding, rows, length), row);
    lorif_decode_group_row(
        bits, payload + group * stride, payload + group_count(rows) * stride + group * low_stride,
        row % LORIF_GROUP_ROWS, 0, scale, length, values);
}
