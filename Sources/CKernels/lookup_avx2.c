#include "tiers.h"

#if defined(LORIF_X86)

#include "codebook.h"
#include "lookup.h"

#include <immintrin.h>

// No fused multiply-adds: the portable tier has none, and the bits are to be the same.
#pragma STDC FP_CONTRACT OFF

#define AVX2 __attribute__((target("avx2,f16c,fma")))
#define TEMPLATE AVX2 static inline __attribute__((always_inline))

// Table look-ups for interleaved codes. One shuffle looks up 32 rows: the 16 entries of a look-up are in both halves of
// a register, rows 0-15 index the low half and rows 16-31 the high one. Four look-ups are added as bytes (4 · 63 is
// below 256), then widened: as 16-bit words the sum counts even rows and 256 times odd rows, shifted right it counts
// odd rows, and the even ones are the difference in the end (modulo 2^16, which 256 look-ups of at most 63 do not
// reach).
// `wide` entries do so for their low and high halves.

enum {
    /// Groups of rows that share a load of the table: as many as registers hold the sums of with wide entries.
    GROUPS = 2,
    ROWS = GROUPS * LORIF_GROUP_ROWS,
    INDEX_BYTES = LORIF_BLOCK_LOOKUPS * LORIF_GROUP_ROWS,
    /// Queries that share the reading of the indices of a page of many blocks.
    BATCH = 8,
    /// Coordinates whose levels are decoded at once.
    LEVELS = 32,
};

/// 32 rows' sums in the order that the widening leaves: register m has rows 4m ..< 4m + 4 and 16 + 4m ..< 16 + 4m + 4.
struct sums32 {
    __m256 part[4];
};

TEMPLATE void store_rows(struct sums32 sums, float *rows) {
    for (int m = 0; m < 4; m += 1) {
        _mm_storeu_ps(rows + 4 * m, _mm256_castps256_ps128(sums.part[m]));
        _mm_storeu_ps(rows + 16 + 4 * m, _mm256_extractf128_ps(sums.part[m], 1));
    }
}

/// The nibbles of 16 bytes: low ones to the low half, high ones to the high half.
TEMPLATE __m256i nibbles(const uint8_t *bytes) {
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
    __m256i shifted = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

/// Indices of look-ups first ..< first + count, 32 bytes each in the order of the rows; `first` is a multiple of 4.
AVX2 static void read_indices(int bits, struct group_codes codes, size_t first, size_t count, uint8_t *indices) {
    if (bits != 3) {
        for (size_t i = 0; i < count; i += 1) {
            __m256i index = nibbles(codes.plane + (first + i) * LORIF_GROUP_BYTES);
            _mm256_storeu_si256((__m256i *)(indices + i * LORIF_GROUP_ROWS), index);
        }
        return;
    }
    __m256i three = _mm256_set1_epi8(3), four = _mm256_set1_epi8(4);
    __m256i high = _mm256_setzero_si256(), low = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i += 1) {
        size_t lookup = first + i;
        if (i % 2 == 0) high = nibbles(codes.plane + lookup / 2 * LORIF_GROUP_BYTES);
        if (i % 4 == 0) low = _mm256_slli_epi16(nibbles(codes.low + lookup / 4 * LORIF_GROUP_BYTES), 2);
        // Bits that a shift of words carries from byte to byte are masked away: nibbles leave room above.
        __m256i index = _mm256_or_si256(_mm256_and_si256(high, three), _mm256_and_si256(low, four));
        _mm256_storeu_si256((__m256i *)(indices + i * LORIF_GROUP_ROWS), index);
        high = _mm256_srli_epi16(high, 2);
        low = _mm256_srli_epi16(low, 1);
    }
}

/// Running sums of one half of the entries for 32 rows.
struct counts {
    __m256i raw, odd;
};

TEMPLATE void widen_into(struct counts *counts, __m256i bytes) {
    counts->raw = _mm256_add_epi16(counts->raw, bytes);
    counts->odd = _mm256_add_epi16(counts->odd, _mm256_srli_epi16(bytes, 8));
}

/// Rows' words in order: 0-7 and 16-23 in `first`, 8-15 and 24-31 in `second`.
TEMPLATE void sort_words(struct counts counts, __m256i *first, __m256i *second) {
    __m256i even = _mm256_sub_epi16(counts.raw, _mm256_slli_epi16(counts.odd, 8));
    *first = _mm256_unpacklo_epi16(even, counts.odd);
    *second = _mm256_unpackhi_epi16(even, counts.odd);
}

/// The entries of one look-up for GROUPS groups of rows: low halves, and high halves if the entries are wide.
TEMPLATE void look_up_one(
    int wide, int packed, const uint8_t *const from[], const uint8_t *table, size_t lookup,
    __m256i found[2][GROUPS]) {
    const __m128i *entries = (const __m128i *)(table + lookup * (wide ? 32 : 16));
    __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(entries)), high = low;
    if (wide) high = _mm256_broadcastsi128_si256(_mm_loadu_si128(entries + 1));
    for (int k = 0; k < GROUPS; k += 1) {
        const uint8_t *at = from[k] + lookup * (packed ? LORIF_GROUP_BYTES : LORIF_GROUP_ROWS);
        __m256i index = packed ? nibbles(at) : _mm256_loadu_si256((const __m256i *)at);
        found[0][k] = _mm256_shuffle_epi8(low, index);
        if (wide) found[1][k] = _mm256_shuffle_epi8(high, index);
    }
}

/// Adds step · (entries - offsets) of up to LORIF_BLOCK_LOOKUPS look-ups to the sums of GROUPS groups of rows.
/// `packed`: the sources are codes (16 bytes for each look-up) rather than indices (32).
TEMPLATE void look_up_block(
    int wide, int packed, const uint8_t *const sources[], const uint8_t *table, size_t count, float step,
    struct sums32 sums[]) {
    struct counts low[GROUPS], high[GROUPS];
    for (int k = 0; k < GROUPS; k += 1) {
        low[k] = high[k] = (struct counts){_mm256_setzero_si256(), _mm256_setzero_si256()};
    }
    const uint8_t *from[GROUPS];
    for (int k = 0; k < GROUPS; k += 1) from[k] = sources[k];
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        __m256i low_bytes[GROUPS], high_bytes[GROUPS];
        for (int n = 0; n < 4; n += 1) {
            __m256i found[2][GROUPS];
            look_up_one(wide, packed, from, table, i + (size_t)n, found);
            for (int k = 0; k < GROUPS; k += 1) {
                low_bytes[k] = n == 0 ? found[0][k] : _mm256_add_epi8(low_bytes[k], found[0][k]);
                if (wide) high_bytes[k] = n == 0 ? found[1][k] : _mm256_add_epi8(high_bytes[k], found[1][k]);
            }
        }
        for (int k = 0; k < GROUPS; k += 1) {
            widen_into(low + k, low_bytes[k]);
            if (wide) widen_into(high + k, high_bytes[k]);
        }
    }
    for (; i < count; i += 1) {
        __m256i found[2][GROUPS];
        look_up_one(wide, packed, from, table, i, found);
        for (int k = 0; k < GROUPS; k += 1) {
            widen_into(low + k, found[0][k]);
            if (wide) widen_into(high + k, found[1][k]);
        }
    }
    __m256i offset = _mm256_set1_epi32((int)count * (wide ? LORIF_WIDE_OFFSET : LORIF_NARROW_OFFSET));
    __m256 by = _mm256_set1_ps(step);
    for (int k = 0; k < GROUPS; k += 1) {
        __m256i l[2], h[2], whole[4];
        sort_words(low[k], l, l + 1);
        if (wide) {
            sort_words(high[k], h, h + 1);
        } else {
            h[0] = h[1] = _mm256_setzero_si256();
        }
        __m256i weights = _mm256_set1_epi32(wide ? 64 << 16 | 1 : 1);
        for (int m = 0; m < 2; m += 1) {
            whole[2 * m] = _mm256_unpacklo_epi16(l[m], h[m]);
            whole[2 * m + 1] = _mm256_unpackhi_epi16(l[m], h[m]);
        }
        for (int m = 0; m < 4; m += 1) {
            if (wide) whole[m] = _mm256_madd_epi16(whole[m], weights);
            __m256 number = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole[m], offset));
            sums[k].part[m] = _mm256_add_ps(sums[k].part[m], _mm256_mul_ps(by, number));
        }
    }
}

/// One vector of look-up tables.
struct table {
    const uint8_t *entries;
    const float *steps;
    size_t lookups, blocks;
};

TEMPLATE struct table table_at(const struct lorif_tables *tables, int wide, size_t vector) {
    size_t lookups = lorif_lookup_count(tables->bits, tables->length);
    size_t blocks = (lookups + LORIF_BLOCK_LOOKUPS - 1) / LORIF_BLOCK_LOOKUPS;
    return (struct table){
        tables->entries + vector * lookups * (wide ? 32 : 16), tables->steps + vector * blocks, lookups, blocks};
}

/// GROUPS groups of rows of one page, from row 32 · group; groups past the last repeat it.
struct window {
    struct group_codes codes[GROUPS];
    int bits;
    /// Where the indices are if they have been read for all look-ups, else NULL.
    const uint8_t *indices;
    uint8_t *buffer;
};

AVX2 static void read_block(const struct window *window, size_t block, size_t lookups) {
    size_t first = block * LORIF_BLOCK_LOOKUPS;
    size_t count = lookups - first < LORIF_BLOCK_LOOKUPS ? lookups - first : LORIF_BLOCK_LOOKUPS;
    for (int k = 0; k < GROUPS; k += 1) {
        uint8_t *indices = window->buffer + (size_t)k * count * LORIF_GROUP_ROWS;
        read_indices(window->bits, window->codes[k], first, count, indices);
    }
}

/// `uses`: how many vectors will be looked up; indices are read for all if that pays.
TEMPLATE struct window window_at(
    const struct lorif_vectors *vectors, int bits, size_t lookups, size_t base, size_t end, size_t uses,
    uint8_t *buffer) {
    struct window window = {.bits = bits, .indices = NULL, .buffer = buffer};
    size_t last = (end - 1) / LORIF_GROUP_ROWS;
    for (int k = 0; k < GROUPS; k += 1) {
        size_t group = base / LORIF_GROUP_ROWS + (size_t)k;
        window.codes[k] = codes_of_group(vectors, bits, group < last ? group : last);
    }
    if (lookups <= LORIF_BLOCK_LOOKUPS && (uses > 1 || bits == 3)) {
        read_block(&window, 0, lookups);
        window.indices = buffer;
    }
    return window;
}

/// Adds one block of a table, from indices just read (`from_buffer`) or from the codes.
TEMPLATE void add_block(
    int wide, const struct window *window, struct table table, size_t block, int from_buffer,
    struct sums32 sums[]) {
    size_t first = block * LORIF_BLOCK_LOOKUPS;
    size_t count = table.lookups - first < LORIF_BLOCK_LOOKUPS ? table.lookups - first : LORIF_BLOCK_LOOKUPS;
    const uint8_t *sources[GROUPS];
    const uint8_t *entries = table.entries + first * (wide ? 32 : 16);
    if (from_buffer) {
        for (int k = 0; k < GROUPS; k += 1) sources[k] = window->buffer + (size_t)k * count * LORIF_GROUP_ROWS;
        look_up_block(wide, 0, sources, entries, count, table.steps[block], sums);
    } else {
        for (int k = 0; k < GROUPS; k += 1) sources[k] = window->codes[k].plane + first * LORIF_GROUP_BYTES;
        look_up_block(wide, 1, sources, entries, count, table.steps[block], sums);
    }
}

TEMPLATE void clear(struct sums32 sums[]) {
    for (int k = 0; k < GROUPS; k += 1) {
        for (int m = 0; m < 4; m += 1) sums[k].part[m] = _mm256_setzero_ps();
    }
}

/// A vector's inner products with GROUPS groups of rows.
TEMPLATE void look_up(int wide, const struct window *window, struct table table, struct sums32 sums[]) {
    clear(sums);
    if (window->indices != NULL) {
        add_block(wide, window, table, 0, 1, sums);
        return;
    }
    for (size_t block = 0; block < table.blocks; block += 1) {
        if (window->bits == 3) {
            read_block(window, block, table.lookups);
            add_block(wide, window, table, block, 1, sums);
        } else {
            add_block(wide, window, table, block, 0, sums);
        }
    }
}

TEMPLATE __m256 magnitude_of(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

TEMPLATE void pairs_of(
    int wide, const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_tables *a, const struct lorif_tables *b, size_t queries, size_t pairs,
    const double *multipliers, float *scores, float *bounds, size_t stride) {
    uint8_t left_buffer[GROUPS * INDEX_BYTES], right_buffer[GROUPS * INDEX_BYTES];
    size_t left_lookups = lorif_lookup_count(a->bits, a->length);
    size_t right_lookups = lorif_lookup_count(b->bits, b->length);
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += ROWS) {
        struct window u = window_at(left, a->bits, left_lookups, base, end, queries * pairs, left_buffer);
        struct window v = window_at(right, b->bits, right_lookups, base, end, queries * pairs, right_buffer);
        for (size_t query = 0; query < queries; query += 1) {
            struct sums32 sums[GROUPS], errors[GROUPS];
            clear(sums);
            for (int k = 0; k < GROUPS; k += 1) {
                for (int m = 0; m < 4; m += 1) errors[k].part[m] = _mm256_set1_ps(0x1p-120f);
            }
            for (size_t pair = query * pairs; pair < (query + 1) * pairs; pair += 1) {
                struct sums32 x[GROUPS], y[GROUPS];
                look_up(wide, &u, table_at(a, wide, pair), x);
                look_up(wide, &v, table_at(b, wide, pair), y);
                for (int k = 0; k < GROUPS; k += 1) {
                    for (int m = 0; m < 4; m += 1) {
                        __m256 product = _mm256_mul_ps(x[k].part[m], y[k].part[m]);
                        sums[k].part[m] = _mm256_add_ps(sums[k].part[m], product);
                    }
                }
                if (bounds == NULL) continue;
                __m256 x_error = _mm256_set1_ps(a->errors[pair]), y_error = _mm256_set1_ps(b->errors[pair]);
                for (int k = 0; k < GROUPS; k += 1) {
                    for (int m = 0; m < 4; m += 1) {
                        __m256 by_x = _mm256_mul_ps(magnitude_of(x[k].part[m]), y_error);
                        __m256 by_y = _mm256_add_ps(magnitude_of(y[k].part[m]), y_error);
                        __m256 error = _mm256_add_ps(errors[k].part[m], by_x);
                        errors[k].part[m] = _mm256_add_ps(error, _mm256_mul_ps(by_y, x_error));
                    }
                }
            }
            float row_values[ROWS], row_errors[ROWS];
            for (int k = 0; k < GROUPS; k += 1) {
                store_rows(sums[k], row_values + k * LORIF_GROUP_ROWS);
                store_rows(errors[k], row_errors + k * LORIF_GROUP_ROWS);
            }
            struct row_sums from = {base, ROWS, row_values, row_errors};
            add_to_scores(
                from, first, end, left->scales, right->scales, multipliers[query], inflation_of(3 * pairs),
                scores + query * stride, bounds == NULL ? NULL : bounds + query * stride);
        }
    }
}

AVX2 void lorif_table_pairs_avx2(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_tables *a, const struct lorif_tables *b, size_t queries, size_t pairs,
    const double *multipliers, float *scores, float *bounds, size_t stride) {
    if (a->wide) {
        pairs_of(
            1, left, right, first, end, a, b, queries, pairs, multipliers, scores, bounds, stride);
    } else {
        pairs_of(
            0, left, right, first, end, a, b, queries, pairs, multipliers, scores, bounds, stride);
    }
}

TEMPLATE void dense_of(
    int wide, const struct lorif_vectors *vectors, size_t first, size_t end, const struct lorif_tables *p,
    size_t queries, const double *multipliers, float *scores, float *bounds, size_t stride) {
    uint8_t buffer[GROUPS * INDEX_BYTES];
    size_t lookups = lorif_lookup_count(p->bits, p->length);
    size_t blocks = lorif_block_count(p->bits, p->length);
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += ROWS) {
        for (size_t batch = 0; batch < queries; batch += BATCH) {
            size_t here = queries - batch < BATCH ? queries - batch : BATCH;
            int from_buffer = here > 1 || p->bits == 3;
            // No reading ahead (uses 0): each block's indices are read just before they are used.
            struct window window = window_at(vectors, p->bits, SIZE_MAX, base, end, 0, buffer);
            struct sums32 sums[BATCH][GROUPS];
            for (size_t query = 0; query < here; query += 1) clear(sums[query]);
            for (size_t block = 0; block < blocks; block += 1) {
                if (from_buffer) {
                    read_block(&window, block, lookups);
                    for (size_t query = 0; query < here; query += 1) {
                        add_block(wide, &window, table_at(p, wide, batch + query), block, 1, sums[query]);
                    }
                } else {
                    add_block(wide, &window, table_at(p, wide, batch), block, 0, sums[0]);
                }
            }
            for (size_t query = 0; query < here; query += 1) {
                float row_values[ROWS], row_errors[ROWS];
                for (int k = 0; k < GROUPS; k += 1) store_rows(sums[query][k], row_values + k * LORIF_GROUP_ROWS);
                for (size_t row = 0; row < ROWS; row += 1) row_errors[row] = p->errors[batch + query];
                struct row_sums from = {base, ROWS, row_values, row_errors};
                size_t at = (batch + query) * stride;
                add_to_scores(
                    from, first, end, vectors->scales, NULL, multipliers[batch + query], inflation_of(0), scores + at,
                    bounds == NULL ? NULL : bounds + at);
            }
        }
    }
}

AVX2 void lorif_table_dense_avx2(
    const struct lorif_vectors *vectors, size_t first, size_t end, const struct lorif_tables *p, size_t queries,
    const double *multipliers, float *scores, float *bounds, size_t stride) {
    if (p->wide) {
        dense_of(1, vectors, first, end, p, queries, multipliers, scores, bounds, stride);
    } else {
        dense_of(0, vectors, first, end, p, queries, multipliers, scores, bounds, stride);
    }
}

/// Levels of coordinates first ..< first + count of one group of rows, in the order of sums32; `first`
/// is a multiple of 4.
AVX2 static void read_levels(int bits, struct group_codes codes, size_t first, size_t count, struct sums32 *levels) {
    uint8_t indices[LEVELS * LORIF_GROUP_ROWS];
    __m256 lower = _mm256_loadu_ps(lorif_levels[bits]), upper = _mm256_loadu_ps(lorif_levels[bits] + 8);
    size_t per_lookup = bits == 1 ? 4 : bits == 2 ? 2 : 1;
    read_indices(bits, codes, first / per_lookup, (count + per_lookup - 1) / per_lookup, indices);
    for (size_t i = 0; i < count; i += 1) {
        __m256i index = _mm256_loadu_si256((const __m256i *)(indices + i / per_lookup * LORIF_GROUP_ROWS));
        // Eight rows of each register's order side by side.
        index = _mm256_permutevar8x32_epi32(index, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        uint8_t bytes[LORIF_GROUP_ROWS];
        _mm256_storeu_si256((__m256i *)bytes, index);
        for (int m = 0; m < 4; m += 1) {
            __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + 8 * m)));
            switch (bits) {
            case 4: break;
            case 3:
                // An index is high bits plus four times the low bit.
                code = _mm256_or_si256(
                    _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(3)), 1), _mm256_srli_epi32(code, 2));
                break;
            case 2:
                code = _mm256_srl_epi32(code, _mm_cvtsi32_si128((int)(i % 2 * 2)));
                code = _mm256_and_si256(code, _mm256_set1_epi32(3));
                break;
            default:
                code = _mm256_srl_epi32(code, _mm_cvtsi32_si128((int)(i % 4)));
                code = _mm256_and_si256(code, _mm256_set1_epi32(1));
            }
            __m256 level = _mm256_permutevar8x32_ps(lower, code);
            if (bits == 4) {
                __m256 large = _mm256_permutevar8x32_ps(upper, code);
                level = _mm256_blendv_ps(level, large, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
            }
            levels[i].part[m] = level;
        }
    }
}

TEMPLATE void contraction_of(
    int wide, const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_tables *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride) {
    uint8_t buffer[GROUPS * INDEX_BYTES];
    struct sums32 levels[GROUPS][LEVELS];
    int v_bits = bits_per_code(v->encoding);
    size_t lookups = lorif_lookup_count(p->bits, p->length), d = v->length;
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += ROWS) {
        struct window x_window = window_at(u, p->bits, lookups, base, end, queries * d, buffer);
        struct window y_window = window_at(v, v_bits, SIZE_MAX, base, end, 0, NULL);
        for (size_t query = 0; query < queries; query += 1) {
            struct sums32 sums[GROUPS], errors[GROUPS];
            clear(sums);
            clear(errors);
            for (size_t start = 0; start < d; start += LEVELS) {
                size_t here = d - start < LEVELS ? d - start : LEVELS;
                for (int k = 0; k < GROUPS; k += 1) read_levels(v_bits, y_window.codes[k], start, here, levels[k]);
                for (size_t j = start; j < start + here; j += 1) {
                    struct sums32 x[GROUPS];
                    look_up(wide, &x_window, table_at(p, wide, query * d + j), x);
                    __m256 error = _mm256_set1_ps(bounds == NULL ? 0 : p->errors[query * d + j]);
                    for (int k = 0; k < GROUPS; k += 1) {
                        for (int m = 0; m < 4; m += 1) {
                            __m256 level = levels[k][j - start].part[m];
                            __m256 product = _mm256_mul_ps(x[k].part[m], level);
                            sums[k].part[m] = _mm256_add_ps(sums[k].part[m], product);
                            if (bounds == NULL) continue;
                            __m256 miss = _mm256_mul_ps(magnitude_of(level), error);
                            errors[k].part[m] = _mm256_add_ps(errors[k].part[m], miss);
                        }
                    }
                }
            }
            float row_values[ROWS], row_errors[ROWS];
            for (int k = 0; k < GROUPS; k += 1) {
                store_rows(sums[k], row_values + k * LORIF_GROUP_ROWS);
                store_rows(errors[k], row_errors + k * LORIF_GROUP_ROWS);
            }
            struct row_sums from = {base, ROWS, row_values, row_errors};
            add_to_scores(
                from, first, end, u->scales, v->scales, multipliers[query], inflation_of(d), scores + query * stride,
                bounds == NULL ? NULL : bounds + query * stride);
        }
    }
}

AVX2 void lorif_table_contraction_avx2(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_tables *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride) {
    if (p->wide) {
        contraction_of(1, u, v, first, end, p, queries, multipliers, scores, bounds, stride);
    } else {
        contraction_of(0, u, v, first, end, p, queries, multipliers, scores, bounds, stride);
    }
}

#endif
