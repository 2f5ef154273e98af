#include "tiers.h"

#if defined(LORIF_X86)

#include "lookup.h"

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,f16c,fma")))
#define TEMPLATE AVX2 static inline __attribute__((always_inline))

// Row-major encodings. The unit is eight inner products at once, of R rows with P vectors, R · P = 8: eight running
// sums hide the latency of a fused multiply-add, and each decoded register serves P vectors. Rows come in tiles of
// eight; a last short tile repeats its last row, so that a row's operations never depend on where a range was cut.

enum {
    TILE = 8,
    /// Numbers of the query vectors that stay in the first-level cache while a tile passes.
    CHUNK = 512,
};

TEMPLATE __m256 eight_codes(int encoding, const uint8_t *codes) {
    switch (encoding) {
    case LORIF_F32: return _mm256_loadu_ps((const float *)(const void *)codes);
    case LORIF_F16: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)codes));
    case LORIF_BF16:
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)codes)), 16));
    default: return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes)));
    }
}

TEMPLATE size_t width_of(int encoding) {
    return encoding == LORIF_F32 ? 4 : encoding == LORIF_INT8 ? 1 : 2;
}

/// The last eight codes of a row that has at least one; zeros before the first.
TEMPLATE __m256 last_codes(int encoding, const uint8_t *row, size_t length) {
    size_t width = width_of(encoding);
    if (length >= 8) return eight_codes(encoding, row + (length - 8) * width);
    uint8_t bytes[32] = {0};
    memcpy(bytes + (8 - length) * width, row, length * width);
    return eight_codes(encoding, bytes);
}

/// The eight sums of eight registers, in order.
TEMPLATE __m256 totals(const __m256 sums[8]) {
    __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
    __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(sums[4], sums[5]), _mm256_hadd_ps(sums[6], sums[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/// Numbers start ..< start + count of the inner products of R rows with P padded vectors: lane r · P + p.
TEMPLATE __m256 eight_products(
    int encoding, int P, const uint8_t *const rows[], const float *vectors, size_t length, size_t start,
    size_t count) {
    int R = 8 / P;
    size_t width = width_of(encoding), stride = lorif_padded_length(length);
    const uint8_t *from[8];
    for (int r = 0; r < R; r += 1) from[r] = rows[r];
    __m256 sums[8];
    for (int k = 0; k < 8; k += 1) sums[k] = _mm256_setzero_ps();
    size_t i = start;
    for (; i + 8 <= start + count; i += 8) {
        __m256 x[8];
        for (int p = 0; p < P; p += 1) x[p] = _mm256_loadu_ps(vectors + (size_t)p * stride + i);
        for (int r = 0; r < R; r += 1) {
            __m256 code = eight_codes(encoding, from[r] + i * width);
            for (int p = 0; p < P; p += 1) sums[r * P + p] = _mm256_fmadd_ps(code, x[p], sums[r * P + p]);
        }
    }
    if (i < start + count) {
        for (int r = 0; r < R; r += 1) {
            __m256 code = last_codes(encoding, from[r], length);
            for (int p = 0; p < P; p += 1) {
                __m256 x = _mm256_loadu_ps(vectors + (size_t)p * stride + i);
                sums[r * P + p] = _mm256_fmadd_ps(code, x, sums[r * P + p]);
            }
        }
    }
    return totals(sums);
}

/// Eight rows' pointers and scales, the last row repeated.
struct tile {
    const uint8_t *rows[TILE];
    __m256 scales;
};

TEMPLATE struct tile tile_at(int encoding, const struct lorif_vectors *vectors, size_t row, size_t end) {
    struct tile tile;
    uint16_t scales[TILE];
    size_t last = end - row < TILE ? end - row - 1 : TILE - 1;
    for (size_t r = 0; r < TILE; r += 1) {
        size_t at = row + (r < last ? r : last);
        tile.rows[r] = vectors->codes + at * vectors->length * width_of(encoding);
    }
    if (encoding == LORIF_F32 || encoding == LORIF_BF16) {
        tile.scales = _mm256_set1_ps(1);
        return tile;
    }
    __m128i bits;
    if (last == TILE - 1) {
        bits = _mm_loadu_si128((const __m128i *)(vectors->scales + 2 * row));
    } else {
        for (size_t r = 0; r < TILE; r += 1) {
            memcpy(scales + r, vectors->scales + 2 * (row + (r < last ? r : last)), 2);
        }
        bits = _mm_loadu_si128((const __m128i *)scales);
    }
    tile.scales = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    return tile;
}

/// The rows of part `part` of a tile for P vectors, in the order that lets horizontal additions sort the sums.
TEMPLATE void part_rows(int P, int part, int order[8]) {
    for (int r = 0; r < 8 / P; r += 1) {
        order[r] = P == 1 ? r : P == 2 ? 2 * part + r % 2 + r / 2 * 4 : part + 4 * r;
    }
}

/// Σ over P pairs of (a · u) (b · v) for the eight rows, in order.
TEMPLATE __m256 pair_products(
    int encoding, int P, const struct tile *left, const struct tile *right, const float *a, const float *b,
    size_t left_length, size_t right_length) {
    __m256 parts[4];
    for (int part = 0; part < P; part += 1) {
        int order[8];
        part_rows(P, part, order);
        const uint8_t *u[8], *v[8];
        int lanes[8];
        for (int r = 0; r < 8 / P; r += 1) {
            u[r] = left->rows[order[r]];
            v[r] = right->rows[order[r]];
            for (int p = 0; p < P; p += 1) lanes[r * P + p] = order[r];
        }
        __m256 scale = _mm256_permutevar8x32_ps(left->scales, _mm256_loadu_si256((const __m256i *)lanes));
        __m256 x = eight_products(encoding, P, u, a, left_length, 0, left_length);
        __m256 y = eight_products(encoding, P, v, b, right_length, 0, right_length);
        parts[part] = _mm256_mul_ps(_mm256_mul_ps(x, scale), y);
    }
    if (P == 1) return parts[0];
    __m256 low = _mm256_hadd_ps(parts[0], parts[1]);
    return P == 2 ? low : _mm256_hadd_ps(low, _mm256_hadd_ps(parts[2], parts[3]));
}

TEMPLATE void add_tile(__m256 sums, size_t count, float *scores) {
    if (count >= TILE) {
        _mm256_storeu_ps(scores, _mm256_add_ps(_mm256_loadu_ps(scores), sums));
        return;
    }
    float lanes[TILE];
    _mm256_storeu_ps(lanes, sums);
    for (size_t i = 0; i < count; i += 1) scores[i] += lanes[i];
}

TEMPLATE void pairs_of(
    int encoding, const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const float *a, const float *b, size_t queries, size_t pairs, float *scores, size_t stride) {
    size_t d1 = left->length, d2 = right->length;
    size_t a_stride = lorif_padded_length(d1), b_stride = lorif_padded_length(d2);
    for (size_t row = first; row < end; row += TILE) {
        struct tile u = tile_at(encoding, left, row, end), v = tile_at(encoding, right, row, end);
        for (size_t query = 0; query < queries; query += 1) {
            const float *x = a + query * pairs * a_stride, *y = b + query * pairs * b_stride;
            __m256 sum = _mm256_setzero_ps();
            size_t pair = 0;
            for (; pair + 4 <= pairs; pair += 4) {
                sum = _mm256_add_ps(
                    sum, pair_products(encoding, 4, &u, &v, x + pair * a_stride, y + pair * b_stride, d1, d2));
            }
            if (pair + 2 <= pairs) {
                sum = _mm256_add_ps(
                    sum, pair_products(encoding, 2, &u, &v, x + pair * a_stride, y + pair * b_stride, d1, d2));
                pair += 2;
            }
            if (pair < pairs) {
                sum = _mm256_add_ps(
                    sum, pair_products(encoding, 1, &u, &v, x + pair * a_stride, y + pair * b_stride, d1, d2));
            }
            add_tile(_mm256_mul_ps(sum, v.scales), end - row, scores + query * stride + row - first);
        }
    }
}

AVX2 static void pairs(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end, const float *a,
    const float *b, size_t queries, size_t pairs, float *scores, size_t stride) {
    // A constant encoding in each call: the compiler makes one loop for each.
    switch (left->encoding) {
    case LORIF_F32: pairs_of(LORIF_F32, left, right, first, end, a, b, queries, pairs, scores, stride); break;
    case LORIF_F16: pairs_of(LORIF_F16, left, right, first, end, a, b, queries, pairs, scores, stride); break;
    case LORIF_BF16: pairs_of(LORIF_BF16, left, right, first, end, a, b, queries, pairs, scores, stride); break;
    default: pairs_of(LORIF_INT8, left, right, first, end, a, b, queries, pairs, scores, stride); break;
    }
}

/// P queries against eight rows of one page.
TEMPLATE void dense_tile(
    int encoding, int P, const struct tile *tile, size_t length, const float *p, size_t count, float *scores,
    size_t stride) {
    __m256 parts[4];
    for (int part = 0; part < P; part += 1) parts[part] = _mm256_setzero_ps();
    for (size_t start = 0; start < length; start += CHUNK) {
        size_t here = length - start < CHUNK ? length - start : CHUNK;
        for (int part = 0; part < P; part += 1) {
            int order[8];
            part_rows(P, part, order);
            const uint8_t *rows[8];
            for (int r = 0; r < 8 / P; r += 1) rows[r] = tile->rows[order[r]];
            parts[part] = _mm256_add_ps(parts[part], eight_products(encoding, P, rows, p, length, start, here));
        }
    }
    float lanes[4][8];
    for (int part = 0; part < P; part += 1) _mm256_storeu_ps(lanes[part], parts[part]);
    for (int query = 0; query < P; query += 1) {
        float sums[TILE];
        for (int part = 0; part < P; part += 1) {
            int order[8];
            part_rows(P, part, order);
            for (int r = 0; r < 8 / P; r += 1) sums[order[r]] = lanes[part][r * P + query];
        }
        __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(sums), tile->scales);
        add_tile(scaled, count, scores + (size_t)query * stride);
    }
}

TEMPLATE void dense_of(
    int encoding, const struct lorif_vectors *vectors, size_t first, size_t end, const float *p, size_t queries,
    float *scores, size_t stride) {
    size_t length = vectors->length, p_stride = lorif_padded_length(length);
    for (size_t row = first; row < end; row += TILE) {
        struct tile tile = tile_at(encoding, vectors, row, end);
        size_t query = 0;
        for (; query + 4 <= queries; query += 4) {
            float *out = scores + query * stride + row - first;
            dense_tile(encoding, 4, &tile, length, p + query * p_stride, end - row, out, stride);
        }
        if (query + 2 <= queries) {
            float *out = scores + query * stride + row - first;
            dense_tile(encoding, 2, &tile, length, p + query * p_stride, end - row, out, stride);
            query += 2;
        }
        if (query < queries) {
            float *out = scores + query * stride + row - first;
            dense_tile(encoding, 1, &tile, length, p + query * p_stride, end - row, out, stride);
        }
    }
}

AVX2 static void dense(
    const struct lorif_vectors *vectors, size_t first, size_t end, const float *p, size_t queries, float *scores,
    size_t stride) {
    switch (vectors->encoding) {
    case LORIF_F32: dense_of(LORIF_F32, vectors, first, end, p, queries, scores, stride); break;
    case LORIF_F16: dense_of(LORIF_F16, vectors, first, end, p, queries, scores, stride); break;
    case LORIF_BF16: dense_of(LORIF_BF16, vectors, first, end, p, queries, scores, stride); break;
    default: dense_of(LORIF_INT8, vectors, first, end, p, queries, scores, stride); break;
    }
}

const struct lorif_scans lorif_scans_avx2 = {
    .pairs = pairs,
    .dense = dense,
    .word_pairs = lorif_word_pairs_avx2,
    .word_contraction = lorif_word_contraction_avx2,
    .table_pairs = lorif_table_pairs_avx2,
    .table_dense = lorif_table_dense_avx2,
    .table_contraction = lorif_table_contraction_avx2,
};

#endif
