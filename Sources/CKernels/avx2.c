#include "codebook.h"
#include "tiers.h"

#if defined(LORIF_X86)

#include <immintrin.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

// The attribute instead of a compiler flag: only these functions may use the instructions, and only after the
// run-time check.
#define AVX2 __attribute__((target("avx2,f16c,fma")))

// Tails go through the portable tier, one vector or less at a time.

AVX2 static void widen_f16(const uint8_t *codes, size_t count, float *values) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(values + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(codes + 2 * i))));
    }
    lorif_portable.widen_f16(codes + 2 * i, count - i, values + i);
}

AVX2 static void widen_bf16(const uint8_t *codes, size_t count, float *values) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(codes + 2 * i))), 16);
        __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
        __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000));
        bits = _mm256_or_si256(bits, _mm256_and_si256(nan, _mm256_set1_epi32(0x400000)));
        _mm256_storeu_si256((__m256i *)(values + i), bits);
    }
    lorif_portable.widen_bf16(codes + 2 * i, count - i, values + i);
}

AVX2 static void narrow_f16(const float *values, size_t count, uint8_t *codes) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(codes + 2 * i), half);
    }
    lorif_portable.narrow_f16(values + i, count - i, codes + 2 * i);
}

AVX2 static void decode_f16(
    const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values) {
    for (size_t row = 0; row < rows; row += 1) {
        const uint8_t *from = codes + 2 * row * length;
        float *to = values + row * length;
        __m256 scale = _mm256_set1_ps(scales[row]);
        size_t i = 0;
        for (; i + 8 <= length; i += 8) {
            __m256 code = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 2 * i)));
            _mm256_storeu_ps(to + i, _mm256_mul_ps(scale, code));
        }
        if (i < length) lorif_portable.decode_f16(from + 2 * i, scales + row, 1, length - i, to + i);
    }
}

AVX2 static void decode_int8(
    const uint8_t *codes, const float *scales, size_t rows, size_t length, float *values) {
    for (size_t row = 0; row < rows; row += 1) {
        const uint8_t *from = codes + row * length;
        float *to = values + row * length;
        __m256 scale = _mm256_set1_ps(scales[row]);
        size_t i = 0;
        for (; i + 16 <= length; i += 16) {
            __m128i code = _mm_loadu_si128((const __m128i *)(from + i));
            __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(code));
            __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(code, 8)));
            _mm256_storeu_ps(to + i, _mm256_mul_ps(scale, low));
            _mm256_storeu_ps(to + i + 8, _mm256_mul_ps(scale, high));
        }
        if (i < length) lorif_portable.decode_int8(from + i, scales + row, 1, length - i, to + i);
    }
}

AVX2 static void encode_f16(const float *values, float factor, size_t count, uint8_t *codes) {
    __m256 by = _mm256_set1_ps(factor);
    __m256 top = _mm256_set1_ps(65504.0f), bottom = _mm256_set1_ps(-65504.0f);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(values + i), by);
        scaled = _mm256_max_ps(bottom, _mm256_min_ps(top, scaled));
        __m128i half = _mm256_cvtps_ph(scaled, _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(codes + 2 * i), half);
    }
    lorif_portable.encode_f16(values + i, factor, count - i, codes + 2 * i);
}

AVX2 static void encode_int8(const float *values, float scale, size_t count, uint8_t *codes) {
    __m256 by = _mm256_set1_ps(scale);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        // cvtps rounds as the environment says, to nearest even, and so does the addition in the portable tier.
        __m256i wide = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(values + i), by));
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
        _mm_storel_epi64((__m128i *)(codes + i), _mm_packs_epi16(words, words));
    }
    lorif_portable.encode_int8(values + i, scale, count - i, codes + i);
}

/// The levels of one codebook in two registers: codes 0-7 and 8-15.
struct codebook {
    __m256 low, high;
};

/// An 8 × 16 byte transpose: codes[k] holds coordinate k of row j in byte j, by_row[j] becomes row j's eight codes.
AVX2 static inline void transpose_codes(const __m128i codes[8], uint64_t by_row[16]) {
    __m128i a[8], b[8];
    for (int k = 0; k < 4; k += 1) {
        a[2 * k] = _mm_unpacklo_epi8(codes[2 * k], codes[2 * k + 1]);
        a[2 * k + 1] = _mm_unpackhi_epi8(codes[2 * k], codes[2 * k + 1]);
    }
    for (int k = 0; k < 2; k += 1) {
        b[4 * k] = _mm_unpacklo_epi16(a[4 * k], a[4 * k + 2]);
        b[4 * k + 1] = _mm_unpackhi_epi16(a[4 * k], a[4 * k + 2]);
        b[4 * k + 2] = _mm_unpacklo_epi16(a[4 * k + 1], a[4 * k + 3]);
        b[4 * k + 3] = _mm_unpackhi_epi16(a[4 * k + 1], a[4 * k + 3]);
    }
    for (int k = 0; k < 4; k += 1) {
        _mm_storeu_si128((__m128i *)(by_row + 4 * k), _mm_unpacklo_epi32(b[k], b[k + 4]));
        _mm_storeu_si128((__m128i *)(by_row + 4 * k + 2), _mm_unpackhi_epi32(b[k], b[k + 4]));
    }
}

/// The levels of eight codes.
AVX2 static inline __m256 levels_of(__m256i code, struct codebook book, int bits) {
    __m256 level = _mm256_permutevar8x32_ps(book.low, code);
    if (bits < 4) return level;
    __m256 upper = _mm256_permutevar8x32_ps(book.high, code);
    return _mm256_blendv_ps(level, upper, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

/// Coordinates 8·block ..< 8·block + 8 of a plane of `bits` bits: codes of rows 0-15 (shift 0) or 16-31 (shift 4).
AVX2 static inline void load_codes(const uint8_t *plane, int bits, size_t block, int shift, __m128i codes[8]) {
    int per_nibble = 4 / bits;
    int groups = 8 / per_nibble;
    __m128i mask = _mm_set1_epi8((char)((1 << bits) - 1));
    const __m128i *from = (const __m128i *)(plane + block * (size_t)groups * LORIF_GROUP_BYTES);
    for (int group = 0; group < groups; group += 1) {
        __m128i nibbles = _mm_loadu_si128(from + group);
        for (int k = 0; k < per_nibble; k += 1) {
            __m128i shifted = _mm_srli_epi16(nibbles, shift + k * bits);
            codes[group * per_nibble + k] = _mm_and_si128(shifted, mask);
        }
    }
}

AVX2 static inline __attribute__((always_inline)) void decode_group_of(
    int bits, const uint8_t *plane, const uint8_t *low, const float *scales, size_t rows, size_t length,
    float *values) {
    struct codebook book = {
        _mm256_loadu_ps(lorif_levels[bits]),
        _mm256_loadu_ps(lorif_levels[bits] + 8),
    };
    // Two blocks of 8 coordinates at once write whole cache lines: with a row stride of a power of two the
    // rows of a group
    // compete for the same few lines.
    size_t blocks = length / 8;
    for (size_t block = 0; block < blocks; block += 2) {
        size_t here = blocks - block < 2 ? 1 : 2;
        for (size_t first = 0; first < rows; first += LORIF_GROUP_BYTES) {
            uint64_t by_row[2][16];
            for (size_t next = 0; next < here; next += 1) {
                int shift = first == 0 ? 0 : 4;
                __m128i codes[8];
                if (bits == 3) {
                    __m128i last[8];
                    load_codes(plane, 2, block + next, shift, codes);
                    load_codes(low, 1, block + next, shift, last);
                    for (int k = 0; k < 8; k += 1) codes[k] = _mm_or_si128(_mm_add_epi8(codes[k], codes[k]), last[k]);
                } else {
                    load_codes(plane, bits, block + next, shift, codes);
                }
                transpose_codes(codes, by_row[next]);
            }
            size_t end = rows - first < LORIF_GROUP_BYTES ? rows - first : LORIF_GROUP_BYTES;
            for (size_t row = 0; row < end; row += 1) {
                __m256 scale = _mm256_set1_ps(scales[first + row]);
                float *to = values + (first + row) * length + 8 * block;
                for (size_t next = 0; next < here; next += 1) {
                    __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(by_row[next] + row)));
                    _mm256_storeu_ps(to + 8 * next, _mm256_mul_ps(scale, levels_of(code, book, bits)));
                }
            }
        }
    }
    if (length % 8 == 0) return;
    for (size_t row = 0; row < rows; row += 1) {
        lorif_decode_group_row(bits, plane, low, row, 8 * blocks, scales[row], length, values + row * length);
    }
}

AVX2 static void decode_group(
    int bits, const uint8_t *plane, const uint8_t *low, const float *scales, size_t rows, size_t length,
    float *values) {
    // Constant bits let the compiler unroll the loops over them.
    switch (bits) {
    case 4: decode_group_of(4, plane, low, scales, rows, length, values); break;
    case 3: decode_group_of(3, plane, low, scales, rows, length, values); break;
    case 2: decode_group_of(2, plane, low, scales, rows, length, values); break;
    default: decode_group_of(1, plane, low, scales, rows, length, values); break;
    }
}

AVX2 static void quantise(
    int bits, const float *values, double inverse, size_t count, uint8_t *codes, struct lorif_code_sums *sums) {
    struct codebook book = {
        _mm256_loadu_ps(lorif_levels[bits]),
        _mm256_loadu_ps(lorif_levels[bits] + 8),
    };
    int half = 1 << (bits - 1);
    __m256d by = _mm256_set1_pd(inverse);
    __m256i largest = _mm256_set1_epi32((int)sums->largest_cell);
    __m256d correlation[2] = {_mm256_loadu_pd(sums->correlation), _mm256_loadu_pd(sums->correlation + 4)};
    __m256d energy[2] = {_mm256_loadu_pd(sums->energy), _mm256_loadu_pd(sums->energy + 4)};
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256d low = _mm256_cvtps_pd(_mm_loadu_ps(values + i));
        __m256d high = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 4));
        __m128 x_low = _mm256_cvtpd_ps(_mm256_mul_pd(low, by)), x_high = _mm256_cvtpd_ps(_mm256_mul_pd(high, by));
        __m256 x = _mm256_set_m128(x_high, x_low);
        __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
        __m256i cell = _mm256_setzero_si256();
        for (int k = 0; k + 1 < half; k += 1) {
            __m256 above = _mm256_cmp_ps(magnitude, _mm256_set1_ps(lorif_thresholds[bits][k]), _CMP_GE_OQ);
            cell = _mm256_sub_epi32(cell, _mm256_castps_si256(above));
        }
        largest = _mm256_max_epi32(largest, cell);
        // Complementing the cell of a negative number mirrors its code: half + ~cell = half - 1 - cell.
        __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
        __m256i code = _mm256_add_epi32(_mm256_set1_epi32(half), _mm256_xor_si256(cell, negative));
        __m256 level = levels_of(code, book, bits);
        __m256d level_low = _mm256_cvtps_pd(_mm256_castps256_ps128(level));
        __m256d level_high = _mm256_cvtps_pd(_mm256_extractf128_ps(level, 1));
        // Products of two f32 are exact in double, so fusing changes nothing.
        correlation[0] = _mm256_fmadd_pd(low, level_low, correlation[0]);
        correlation[1] = _mm256_fmadd_pd(high, level_high, correlation[1]);
        energy[0] = _mm256_fmadd_pd(level_low, level_low, energy[0]);
        energy[1] = _mm256_fmadd_pd(level_high, level_high, energy[1]);
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
        _mm_storel_epi64((__m128i *)(codes + i), _mm_packus_epi16(words, words));
    }
    uint32_t cells[8];
    _mm256_storeu_si256((__m256i *)cells, largest);
    for (size_t lane = 0; lane < 8; lane += 1) {
        if (cells[lane] > sums->largest_cell) sums->largest_cell = cells[lane];
    }
    for (size_t k = 0; k < 2; k += 1) {
        _mm256_storeu_pd(sums->correlation + 4 * k, correlation[k]);
        _mm256_storeu_pd(sums->energy + 4 * k, energy[k]);
    }
    lorif_portable.quantise(bits, values + i, inverse, count - i, codes + i, sums);
}

AVX2 static float largest_magnitude(const float *values, size_t count) {
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    __m256 largest = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        largest = _mm256_max_ps(largest, _mm256_and_ps(mask, _mm256_loadu_ps(values + i)));
    }
    float lanes[9];
    _mm256_storeu_ps(lanes, largest);
    lanes[8] = lorif_portable.largest_magnitude(values + i, count - i);
    return lorif_portable.largest_magnitude(lanes, 9);
}

AVX2 static size_t first_non_finite(const float *values, size_t count) {
    __m256i exponent = _mm256_set1_epi32(0x7F800000);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i found = _mm256_setzero_si256();
        for (size_t k = 0; k < 32; k += 8) {
            __m256i bits = _mm256_loadu_si256((const __m256i *)(values + i + k));
            found = _mm256_or_si256(found, _mm256_cmpeq_epi32(_mm256_and_si256(bits, exponent), exponent));
        }
        if (_mm256_movemask_epi8(found) != 0) break;
    }
    return i + lorif_portable.first_non_finite(values + i, count - i);
}

AVX2 static double sum_of_squares(const float *values, size_t count) {
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 x = _mm256_loadu_ps(values + i);
        __m256d x_low = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
        __m256d x_high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
        // The square of an f32 is exact in double, so fusing changes nothing.
        low = _mm256_fmadd_pd(x_low, x_low, low);
        high = _mm256_fmadd_pd(x_high, x_high, high);
    }
    double lanes[8];
    _mm256_storeu_pd(lanes, low);
    _mm256_storeu_pd(lanes + 4, high);
    for (; i < count; i += 1) lanes[i % 8] += (double)values[i] * (double)values[i];
    for (size_t width = 4; width > 0; width /= 2) {
        for (size_t lane = 0; lane < width; lane += 1) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

/// Adds the forms of `count` components to a sum, so that a number of the matrix is widened once for all; `count` is a constant
/// where this is used.
AVX2 __attribute__((always_inline)) static inline double add_bilinear_forms(
    const float *matrix, size_t rows, size_t columns, const float *left, const double *right, size_t count, double sum) {
    double totals[4] = {0};
    for (size_t i = 0; i < rows; i += 1) {
        const float *row = matrix + i * columns;
        __m256d low[4], high[4];
        for (size_t c = 0; c < count; c += 1) low[c] = high[c] = _mm256_setzero_pd();
        size_t j = 0;
        for (; j + 8 <= columns; j += 8) {
            __m256d m_low = _mm256_cvtps_pd(_mm_loadu_ps(row + j));
            __m256d m_high = _mm256_cvtps_pd(_mm_loadu_ps(row + j + 4));
            for (size_t c = 0; c < count; c += 1) {
                // The product of two f32 is exact in double, so fusing changes nothing.
                low[c] = _mm256_fmadd_pd(m_low, _mm256_loadu_pd(right + c * columns + j), low[c]);
                high[c] = _mm256_fmadd_pd(m_high, _mm256_loadu_pd(right + c * columns + j + 4), high[c]);
            }
        }
        for (size_t c = 0; c < count; c += 1) {
            double lanes[8];
            _mm256_storeu_pd(lanes, low[c]);
            _mm256_storeu_pd(lanes + 4, high[c]);
            for (size_t k = j; k < columns; k += 1) lanes[k % 8] += row[k] * right[c * columns + k];
            for (size_t width = 4; width > 0; width /= 2) {
                for (size_t lane = 0; lane < width; lane += 1) lanes[lane] += lanes[lane + width];
            }
            totals[c] += left[c * rows + i] * lanes[0];
        }
    }
    for (size_t c = 0; c < count; c += 1) sum += totals[c];
    return sum;
}

AVX2 static double bilinear_form(
    const float *matrix, size_t rows, size_t columns, const float *left, const double *right, size_t components) {
    double sum = 0;
    size_t c = 0;
    for (; c + 4 <= components; c += 4) {
        sum = add_bilinear_forms(matrix, rows, columns, left + c * rows, right + c * columns, 4, sum);
    }
    for (; c < components; c += 1) {
        sum = add_bilinear_forms(matrix, rows, columns, left + c * rows, right + c * columns, 1, sum);
    }
    return sum;
}

AVX2 static void narrow_bf16(const float *values, size_t count, uint8_t *codes) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(values + i));
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
        __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000));
        __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        __m256i words = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
        __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(codes + 2 * i), packed);
    }
    lorif_portable.narrow_bf16(values + i, count - i, codes + 2 * i);
}

const struct lorif_kernels lorif_avx2 = {
    .name = "avx2",
    .scans = &lorif_scans_avx2,
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

#endif
