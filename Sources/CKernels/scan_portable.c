#include "codebook.h"
#include "lookup.h"

// Each product and sum rounds as written: the table loops give the same bits on every tier.
#pragma STDC FP_CONTRACT OFF

enum { CHUNK = 64 };

/// Codes start ..< start + count of one row as f32, without the scale.
static void read_codes(const struct lorif_vectors *vectors, size_t row, size_t start, size_t count, float *codes) {
    size_t at = row * vectors->length + start;
    switch (vectors->encoding) {
    case LORIF_F32: memcpy(codes, vectors->codes + 4 * at, 4 * count); break;
    case LORIF_F16: lorif_portable.widen_f16(vectors->codes + 2 * at, count, codes); break;
    case LORIF_BF16: lorif_portable.widen_bf16(vectors->codes + 2 * at, count, codes); break;
    default:
        for (size_t i = 0; i < count; i += 1) codes[i] = (float)(int8_t)vectors->codes[at + i];
        break;
    }
}

/// The inner product of a row's codes and a padded vector: eight interleaved sums.
static float dot(const struct lorif_vectors *vectors, size_t row, const float *padded) {
    float lanes[8] = {0};
    size_t whole = vectors->length / 8 * 8, padding = lorif_padded_length(vectors->length) - vectors->length;
    for (size_t start = 0; start < vectors->length; start += CHUNK) {
        float codes[CHUNK] = {0};
        size_t count = vectors->length - start < CHUNK ? vectors->length - start : CHUNK;
        read_codes(vectors, row, start, count, codes);
        size_t before = whole > start ? (whole - start < count ? whole - start : count) : 0;
        for (size_t i = 0; i < before; i += 8) {
            for (size_t lane = 0; lane < 8; lane += 1) lanes[lane] += codes[i + lane] * padded[start + i + lane];
        }
        for (size_t i = before; i < count; i += 1) lanes[i % 8] += codes[i] * padded[start + padding + i];
    }
    for (size_t width = 4; width > 0; width /= 2) {
        for (size_t lane = 0; lane < width; lane += 1) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

static float scale_of(const struct lorif_vectors *vectors, size_t row) {
    return vectors->scales == NULL ? 1 : (float)scale_at(vectors->scales, row);
}

static void pairs(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end, const float *a,
    const float *b, size_t queries, size_t pairs, float *scores, size_t stride) {
    size_t a_length = lorif_padded_length(left->length), b_length = lorif_padded_length(right->length);
    for (size_t row = first; row < end; row += 1) {
        for (size_t query = 0; query < queries; query += 1) {
            float sum = 0;
            for (size_t pair = query * pairs; pair < (query + 1) * pairs; pair += 1) {
                sum += dot(left, row, a + pair * a_length) * scale_of(left, row) * dot(right, row, b + pair * b_length);
            }
            scores[query * stride + row - first] += sum * scale_of(right, row);
        }
    }
}

static void dense(
    const struct lorif_vectors *vectors, size_t first, size_t end, const float *p, size_t queries, float *scores,
    size_t stride) {
    size_t p_length = lorif_padded_length(vectors->length);
    for (size_t row = first; row < end; row += 1) {
        for (size_t query = 0; query < queries; query += 1) {
            scores[query * stride + row - first] += dot(vectors, row, p + query * p_length) * scale_of(vectors, row);
        }
    }
}

/// Indices of `count` look-ups of one group of rows: 32 bytes for each look-up, byte r for row r.
static void read_indices(
    int bits, struct group_codes codes, size_t first, size_t count, uint8_t indices[][LORIF_GROUP_ROWS]) {
    for (size_t i = 0; i < count; i += 1) {
        size_t lookup = first + i;
        const uint8_t *nibbles = codes.plane + (bits == 3 ? lookup / 2 : lookup) * LORIF_GROUP_BYTES;
        for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
            unsigned shift = row < LORIF_GROUP_BYTES ? 0 : 4;
            unsigned index = nibbles[row % LORIF_GROUP_BYTES] >> shift & 15;
            if (bits == 3) {
                unsigned low = codes.low[lookup / 4 * LORIF_GROUP_BYTES + row % LORIF_GROUP_BYTES] >> shift & 15;
                index = (index >> (lookup % 2 * 2) & 3) | (low >> (lookup % 4) & 1) << 2;
            }
            indices[i][row] = (uint8_t)index;
        }
    }
}

/// Table `vector`'s inner products with 32 rows, in units of the row's scale.
static void look_up(
    const struct lorif_tables *tables, size_t vector, struct group_codes codes, float sums[LORIF_GROUP_ROWS]) {
    size_t lookups = lorif_lookup_count(tables->bits, tables->length);
    size_t blocks = lorif_block_count(tables->bits, tables->length);
    size_t width = tables->wide ? 32 : 16;
    int32_t offset = tables->wide ? LORIF_WIDE_OFFSET : LORIF_NARROW_OFFSET;
    const uint8_t *entries = tables->entries + vector * lookups * width;
    for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) sums[row] = 0;
    for (size_t block = 0; block < blocks; block += 1) {
        size_t first = block * LORIF_BLOCK_LOOKUPS;
        size_t count = lookups - first < LORIF_BLOCK_LOOKUPS ? lookups - first : LORIF_BLOCK_LOOKUPS;
        uint8_t indices[LORIF_BLOCK_LOOKUPS][LORIF_GROUP_ROWS];
        int32_t whole[LORIF_GROUP_ROWS] = {0};
        read_indices(tables->bits, codes, first, count, indices);
        for (size_t i = 0; i < count; i += 1) {
            const uint8_t *table = entries + (first + i) * width;
            for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
                unsigned index = indices[i][row];
                whole[row] += table[index] + (tables->wide ? 64 * (int32_t)table[16 + index] : 0);
            }
        }
        float step = tables->steps[vector * blocks + block];
        for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
            sums[row] += step * (float)(whole[row] - offset * (int32_t)count);
        }
    }
}

static void table_pairs(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_tables *a, const struct lorif_tables *b, size_t queries, size_t pairs,
    const double *multipliers, float *scores, float *bounds, size_t stride) {
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += LORIF_GROUP_ROWS) {
        size_t group = base / LORIF_GROUP_ROWS;
        struct group_codes u = codes_of_group(left, a->bits, group), v = codes_of_group(right, b->bits, group);
        for (size_t query = 0; query < queries; query += 1) {
            float sums[LORIF_GROUP_ROWS], errors[LORIF_GROUP_ROWS];
            for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
                sums[row] = 0;
                // Products below the normal numbers: the largest pair's table entries are near 1.
                errors[row] = 0x1p-120f;
            }
            for (size_t pair = query * pairs; pair < (query + 1) * pairs; pair += 1) {
                float x[LORIF_GROUP_ROWS], y[LORIF_GROUP_ROWS];
                look_up(a, pair, u, x);
                look_up(b, pair, v, y);
                float x_error = a->errors[pair], y_error = b->errors[pair];
                for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
                    sums[row] += x[row] * y[row];
                    errors[row] += fabsf(x[row]) * y_error;
                    errors[row] += (fabsf(y[row]) + y_error) * x_error;
                }
            }
            struct row_sums from = {base, LORIF_GROUP_ROWS, sums, errors};
            add_to_scores(
                from, first, end, left->scales, right->scales, multipliers[query], inflation_of(3 * pairs),
                scores + query * stride, bounds == NULL ? NULL : bounds + query * stride);
        }
    }
}

static void table_dense(
    const struct lorif_vectors *vectors, size_t first, size_t end, const struct lorif_tables *p, size_t queries,
    const double *multipliers, float *scores, float *bounds, size_t stride) {
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += LORIF_GROUP_ROWS) {
        struct group_codes codes = codes_of_group(vectors, p->bits, base / LORIF_GROUP_ROWS);
        for (size_t query = 0; query < queries; query += 1) {
            float sums[LORIF_GROUP_ROWS], errors[LORIF_GROUP_ROWS];
            look_up(p, query, codes, sums);
            for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) errors[row] = p->errors[query];
            struct row_sums from = {base, LORIF_GROUP_ROWS, sums, errors};
            add_to_scores(
                from, first, end, vectors->scales, NULL, multipliers[query], inflation_of(0), scores + query * stride,
                bounds == NULL ? NULL : bounds + query * stride);
        }
    }
}

static void table_contraction(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_tables *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride) {
    int bits = p->bits, v_bits = bits_per_code(v->encoding);
    size_t per_lookup = v_bits == 1 ? 4 : v_bits == 2 ? 2 : 1;
    for (size_t base = first - first % LORIF_GROUP_ROWS; base < end; base += LORIF_GROUP_ROWS) {
        struct group_codes u_codes = codes_of_group(u, bits, base / LORIF_GROUP_ROWS);
        struct group_codes v_codes = codes_of_group(v, v_bits, base / LORIF_GROUP_ROWS);
        for (size_t query = 0; query < queries; query += 1) {
            float sums[LORIF_GROUP_ROWS] = {0}, errors[LORIF_GROUP_ROWS] = {0};
            for (size_t j = 0; j < v->length; j += 1) {
                uint8_t indices[1][LORIF_GROUP_ROWS];
                float x[LORIF_GROUP_ROWS];
                float error = p->errors[query * v->length + j];
                read_indices(v_bits, v_codes, j / per_lookup, 1, indices);
                look_up(p, query * v->length + j, u_codes, x);
                for (size_t row = 0; row < LORIF_GROUP_ROWS; row += 1) {
                    float level = lorif_levels[v_bits][code_of_index(v_bits, indices[0][row], j)];
                    sums[row] += x[row] * level;
                    errors[row] += fabsf(level) * error;
                }
            }
            struct row_sums from = {base, LORIF_GROUP_ROWS, sums, errors};
            add_to_scores(
                from, first, end, u->scales, v->scales, multipliers[query], inflation_of(v->length),
                scores + query * stride, bounds == NULL ? NULL : bounds + query * stride);
        }
    }
}

const struct lorif_scans lorif_scans_portable = {
    .pairs = pairs,
    .dense = dense,
    .word_pairs = lorif_word_pairs_portable,
    .word_contraction = lorif_word_contraction_portable,
    .table_pairs = table_pairs,
    .table_dense = table_dense,
    .table_contraction = table_contraction,
};
