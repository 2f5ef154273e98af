#include "tiers.h"

#if defined(LORIF_X86)

#include "words.h"

#include <immintrin.h>

// No fused multiply-adds that round once where the portable tier rounds twice: the bits are to be the same.
#pragma STDC FP_CONTRACT OFF

#define AVX2 __attribute__((target("avx2,f16c,fma")))
#define TEMPLATE AVX2 static inline __attribute__((always_inline))

// int8 codes times whole numbers. Codes are widened by shifts, a register's even places apart from its odd ones: shifts
// and multiplications run beside each other, while the instructions that widen in order take two cycles each.
// Rows come in tiles of eight; a last short tile repeats its last row.

enum {
    TILE = 8,
    /// How far ahead the next codes are fetched: about what is checked and scored at once (PageScorer), so that
    /// reading goes on while this part is scored.
    AHEAD = 64 << 10,
};

TEMPLATE void fetch_ahead(const uint8_t *codes, size_t count) {
    for (size_t at = 0; at < count; at += 64) _mm_prefetch((const char *)codes + AHEAD + at, _MM_HINT_T1);
}

/// The last 32 codes of a row that has at least one; zeros before the first.
TEMPLATE __m256i last_codes(const uint8_t *row, size_t length) {
    if (length >= WORD_GROUP) return _mm256_loadu_si256((const __m256i *)(row + length - WORD_GROUP));
    uint8_t bytes[WORD_GROUP] = {0};
    memcpy(bytes + WORD_GROUP - length, row, length);
    return _mm256_loadu_si256((const __m256i *)bytes);
}

/// Adds the products of 32 codes with P vectors, whose halves are `stride` apart.
TEMPLATE void add_group(
    int P, __m256i codes, const int16_t *halves, size_t stride, __m256i high[], __m256i low[]) {
    __m256i odd = _mm256_srai_epi16(codes, 8), even = _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8);
    for (int p = 0; p < P; p += 1) {
        const __m256i *of = (const __m256i *)(halves + (size_t)p * stride);
        __m256i h = _mm256_add_epi32(
            _mm256_madd_epi16(even, _mm256_loadu_si256(of)), _mm256_madd_epi16(odd, _mm256_loadu_si256(of + 1)));
        __m256i l = _mm256_add_epi32(
            _mm256_madd_epi16(even, _mm256_loadu_si256(of + 2)), _mm256_madd_epi16(odd, _mm256_loadu_si256(of + 3)));
        high[p] = _mm256_add_epi32(high[p], h);
        low[p] = _mm256_add_epi32(low[p], l);
    }
}

/// The inner products of numbers start ..< end of one row with P vectors: eight lanes each.
TEMPLATE void row_products(
    int P, const uint8_t *row, size_t length, size_t start, size_t end, const int16_t *halves, size_t stride,
    __m256 sums[]) {
    __m256i high[4], low[4];
    for (int p = 0; p < P; p += 1) high[p] = low[p] = _mm256_setzero_si256();
    size_t i = start;
    for (; i + WORD_GROUP <= end; i += WORD_GROUP) {
        add_group(P, _mm256_loadu_si256((const __m256i *)(row + i)), halves + 2 * i, stride, high, low);
    }
    if (i < end) add_group(P, last_codes(row, length), halves + 2 * i, stride, high, low);
    for (int p = 0; p < P; p += 1) {
        // The product is exact, so that fusing it with the addition changes no bit.
        sums[p] = _mm256_fmadd_ps(
            _mm256_cvtepi32_ps(high[p]), _mm256_set1_ps(0x1p15f), _mm256_cvtepi32_ps(low[p]));
    }
}

/// The eight sums of eight registers, in order.
TEMPLATE __m256 totals(const __m256 sums[8]) {
    __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(sums[4], sums[5]), _mm256_hadd_ps(sums[6], sums[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/// Eight rows and their scales; of fewer, the last is repeated. Whole tiles need no pointers.
struct tile {
    const uint8_t *codes, *rows[TILE];
    __m256 scales;
};

TEMPLATE struct tile tile_at(
    int is_whole, const struct lorif_vectors *vectors, size_t length, size_t row, size_t end) {
    struct tile tile;
    tile.codes = vectors->codes + row * length;
    fetch_ahead(tile.codes, TILE * length);
    __m128i bits;
    if (is_whole) {
        bits = _mm_loadu_si128((const __m128i *)(vectors->scales + 2 * row));
    } else {
        uint16_t scales[TILE];
        for (size_t r = 0; r < TILE; r += 1) {
            size_t at = row + r < end ? r : end - row - 1;
            tile.rows[r] = tile.codes + at * length;
            memcpy(scales + r, vectors->scales + 2 * (row + at), 2);
        }
        bits = _mm_loadu_si128((const __m128i *)scales);
    }
    tile.scales = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    return tile;
}

/// The inner products of a tile's rows with P vectors from number `vector` on.
TEMPLATE void tile_products(
    int is_whole, int P, const struct tile *tile, const struct lorif_words *words, size_t length, size_t vector,
    __m256 products[]) {
    size_t stride = (length + WORD_GROUP - 1) / WORD_GROUP * WORD_GROUP * 2;
    const int16_t *halves = words->halves + vector * stride;
    __m256 lanes[4][TILE];
    for (size_t start = 0; start < length || start == 0; start += WORD_BLOCK) {
        size_t end = length - start < WORD_BLOCK ? length : start + WORD_BLOCK;
#pragma clang loop unroll(full)
        for (size_t r = 0; r < TILE; r += 1) {
            __m256 sums[4];
            const uint8_t *row = is_whole ? tile->codes + r * length : tile->rows[r];
            row_products(P, row, length, start, end, halves, stride, sums);
            for (int p = 0; p < P; p += 1) lanes[p][r] = start == 0 ? sums[p] : _mm256_add_ps(lanes[p][r], sums[p]);
        }
    }
    for (int p = 0; p < P; p += 1) {
        __m256 factor = _mm256_set1_ps(words->factors[vector + (size_t)p]);
        products[p] = _mm256_mul_ps(_mm256_mul_ps(totals(lanes[p]), _mm256_set1_ps(0x1p-28f)), factor);
    }
}

TEMPLATE __m256 add_pairs(
    int is_whole, int P, const struct tile *u, const struct tile *v, const struct lorif_words *a,
    const struct lorif_words *b, size_t d1, size_t d2, size_t pair, __m256 sum) {
    __m256 x[4], y[4];
    tile_products(is_whole, P, u, a, d1, pair, x);
    tile_products(is_whole, P, v, b, d2, pair, y);
    for (int p = 0; p < P; p += 1) sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_mul_ps(x[p], u->scales), y[p]));
    return sum;
}

/// One tile of rows; lengths are arguments of their own so that the compiler may know them.
TEMPLATE void pairs_of_tile(
    int is_whole, size_t d1, size_t d2, const struct lorif_vectors *left, const struct lorif_vectors *right,
    size_t row, size_t end, const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs,
    float *scores, size_t stride) {
    struct tile u = tile_at(is_whole, left, d1, row, end), v = tile_at(is_whole, right, d2, row, end);
    for (size_t query = 0; query < queries; query += 1) {
        __m256 sum = _mm256_setzero_ps();
        size_t pair = query * pairs, last = pair + pairs;
        for (; pair + 2 <= last; pair += 2) sum = add_pairs(is_whole, 2, &u, &v, a, b, d1, d2, pair, sum);
        if (pair < last) sum = add_pairs(is_whole, 1, &u, &v, a, b, d1, d2, pair, sum);
        sum = _mm256_mul_ps(sum, v.scales);
        float *out = scores + query * stride;
        if (is_whole) {
            _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sum));
        } else {
            float lanes[TILE];
            _mm256_storeu_ps(lanes, sum);
            for (size_t i = 0; row + i < end; i += 1) out[i] += lanes[i];
        }
    }
}

AVX2 void lorif_word_pairs_avx2(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs, float *scores,
    size_t stride) {
    size_t d1 = left->length, d2 = right->length, row = first;
    if (d1 == 64 && d2 == 64) {
        // What most stores have gets a loop without inner loops.
        for (; row + TILE <= end; row += TILE) {
            float *out = scores + row - first;
            pairs_of_tile(1, 64, 64, left, right, row, end, a, b, queries, pairs, out, stride);
        }
    }
    for (; row + TILE <= end; row += TILE) {
        pairs_of_tile(1, d1, d2, left, right, row, end, a, b, queries, pairs, scores + row - first, stride);
    }
    if (row < end) pairs_of_tile(0, d1, d2, left, right, row, end, a, b, queries, pairs, scores + row - first, stride);
}

/// Σ |code| of a row.
AVX2 static float code_magnitudes(const uint8_t *codes, size_t length) {
    __m256i sums = _mm256_setzero_si256(), zero = sums;
    size_t i = 0;
    for (; i + 32 <= length; i += 32) {
        __m256i magnitudes = _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(codes + i)));
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(magnitudes, zero));
    }
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, sums);
    uint64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    for (; i < length; i += 1) {
        int code = (int8_t)codes[i];
        sum += (uint64_t)(code < 0 ? -code : code);
    }
    return (float)sum;
}

/// Adds products of 64 columns with v, in eight lanes, to `lanes`: `x` are some codes of u, widened, an even number.
TEMPLATE __m256 add_columns(
    const int16_t *x, size_t count, const int16_t *numbers, size_t width, const uint8_t *y, __m256 lanes) {
    enum { REGISTERS = MATRIX_COLUMNS / 8 };
    __m256i sums[REGISTERS];
    for (int m = 0; m < REGISTERS; m += 1) sums[m] = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i += 2) {
        int32_t two;
        memcpy(&two, x + i, sizeof two);
        __m256i codes = _mm256_set1_epi32(two);
        const __m256i *from = (const __m256i *)(numbers + i * width);
        for (int m = 0; m < REGISTERS; m += 1) {
            sums[m] = _mm256_add_epi32(sums[m], _mm256_madd_epi16(codes, _mm256_loadu_si256(from + m)));
        }
    }
    for (int m = 0; m < REGISTERS; m += 1) {
        __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(y + 8 * m))));
        lanes = _mm256_add_ps(lanes, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[m]), v));
    }
    return lanes;
}

AVX2 static void widen(const uint8_t *codes, size_t length, int16_t *wide) {
    size_t i = 0;
    for (; i + 16 <= length; i += 16) {
        __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(codes + i)));
        _mm256_storeu_si256((__m256i *)(wide + i), words);
    }
    for (; i < length; i += 1) wide[i] = (int8_t)codes[i];
    if (length % 2 == 1) wide[length] = 0;
}

AVX2 void lorif_word_contraction_avx2(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_word_matrices *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride) {
    size_t rows = p->rows, columns = p->columns, size = lorif_word_matrix_count(rows, columns);
    size_t width = size / ((rows + 1) / 2 * 2);
    float unit_error = word_matrix_error(rows, columns);
    int16_t wide[TILE][MATRIX_BLOCK];
    for (size_t row = first; row < end; row += TILE) {
        size_t here = end - row < TILE ? end - row : TILE;
        fetch_ahead(u->codes + row * rows, TILE * rows);
        fetch_ahead(v->codes + row * columns, TILE * columns);
        float errors[TILE] = {0};
        for (size_t r = 0; r < here; r += 1) {
            float x = code_magnitudes(u->codes + (row + r) * rows, rows);
            errors[r] = unit_error * x * code_magnitudes(v->codes + (row + r) * columns, columns);
        }
        for (size_t query = 0; query < queries; query += 1) {
            const int16_t *numbers = p->numbers + query * size;
            __m256 lanes[TILE];
            for (size_t r = 0; r < TILE; r += 1) lanes[r] = _mm256_setzero_ps();
            for (size_t start = 0; start < rows; start += MATRIX_BLOCK) {
                size_t count = rows - start < MATRIX_BLOCK ? rows - start : MATRIX_BLOCK;
                for (size_t r = 0; r < here; r += 1) {
                    // One block stays widened for all queries.
                    if (query == 0 || rows > MATRIX_BLOCK) {
                        widen(u->codes + (row + r) * rows + start, count, wide[r]);
                    }
                    for (size_t column = 0; column < columns; column += MATRIX_COLUMNS) {
                        const uint8_t *y = v->codes + (row + r) * columns + column;
                        uint8_t padded[MATRIX_COLUMNS];
                        if (columns - column < MATRIX_COLUMNS) {
                            memset(padded, 0, sizeof padded);
                            memcpy(padded, y, columns - column);
                            y = padded;
                        }
                        lanes[r] = add_columns(
                            wide[r], count, numbers + start * width + 2 * column, width, y, lanes[r]);
                    }
                }
            }
            float sums[TILE];
            _mm256_storeu_ps(sums, totals(lanes));
            struct row_sums from = {row, here, sums, errors};
            size_t at = query * stride + row - first;
            add_to_scores(
                from, row, row + here, u->scales, v->scales, multipliers[query], inflation_of(0), scores + at,
                bounds == NULL ? NULL : bounds + at);
        }
    }
}

#endif
