#include "words.h"

#pragma STDC FP_CONTRACT OFF

/// Eight sums in the order of the horizontal additions of a register.
static float total(const float lanes[8]) {
    float low = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    return low + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/// The inner product of a row's codes with one vector, in units of its factor.
static float dot(const struct lorif_vectors *vectors, size_t row, const struct lorif_words *words, size_t vector) {
    size_t length = vectors->length, whole = length / WORD_GROUP * WORD_GROUP;
    size_t padding = WORD_GROUP - (length - whole);
    const int16_t *halves = words->halves + vector * lorif_word_count(length);
    const uint8_t *codes = vectors->codes + row * length;
    float lanes[8] = {0};
    for (size_t start = 0; start < length; start += WORD_BLOCK) {
        size_t end = length - start < WORD_BLOCK ? length : start + WORD_BLOCK;
        int32_t high[8] = {0}, low[8] = {0};
        for (size_t i = start; i < end; i += 1) {
            size_t place = i < whole ? i : i + padding, in_group = place % WORD_GROUP;
            const int16_t *group = halves + place / WORD_GROUP * WORD_GROUP * 2;
            size_t at = in_group % 2 * (WORD_GROUP / 2) + in_group / 2;
            int32_t code = (int8_t)codes[i];
            high[in_group / 4] += code * group[at];
            low[in_group / 4] += code * group[WORD_GROUP + at];
        }
        for (size_t lane = 0; lane < 8; lane += 1) {
            float sum = (float)high[lane] * 0x1p15f + (float)low[lane];
            lanes[lane] = start == 0 ? sum : lanes[lane] + sum;
        }
    }
    return total(lanes) * 0x1p-28f;
}

void lorif_word_pairs_portable(
    const struct lorif_vectors *left, const struct lorif_vectors *right, size_t first, size_t end,
    const struct lorif_words *a, const struct lorif_words *b, size_t queries, size_t pairs, float *scores,
    size_t stride) {
    for (size_t row = first; row < end; row += 1) {
        float left_scale = (float)scale_at(left->scales, row), right_scale = (float)scale_at(right->scales, row);
        for (size_t query = 0; query < queries; query += 1) {
            float sum = 0;
            for (size_t pair = query * pairs; pair < (query + 1) * pairs; pair += 1) {
                float x = dot(left, row, a, pair) * a->factors[pair];
                float y = dot(right, row, b, pair) * b->factors[pair];
                sum += x * left_scale * y;
            }
            scores[query * stride + row - first] += sum * right_scale;
        }
    }
}

static float code_magnitudes(const struct lorif_vectors *vectors, size_t row) {
    size_t sum = 0;
    for (size_t i = 0; i < vectors->length; i += 1) {
        int code = (int8_t)vectors->codes[row * vectors->length + i];
        sum += (size_t)(code < 0 ? -code : code);
    }
    return (float)sum;
}

void lorif_word_contraction_portable(
    const struct lorif_vectors *u, const struct lorif_vectors *v, size_t first, size_t end,
    const struct lorif_word_matrices *p, size_t queries, const double *multipliers, float *scores, float *bounds,
    size_t stride) {
    size_t rows = p->rows, columns = p->columns, size = lorif_word_matrix_count(rows, columns);
    size_t width = size / ((rows + 1) / 2 * 2);
    for (size_t row = first; row < end; row += 1) {
        const uint8_t *x = u->codes + row * rows, *y = v->codes + row * columns;
        float error = word_matrix_error(rows, columns) * code_magnitudes(u, row) * code_magnitudes(v, row);
        for (size_t query = 0; query < queries; query += 1) {
            const int16_t *numbers = p->numbers + query * size;
            float lanes[8] = {0};
            for (size_t start = 0; start < rows; start += MATRIX_BLOCK) {
                for (size_t column = 0; column < columns; column += 1) {
                    int32_t sum = 0;
                    for (size_t i = start; i < rows && i < start + MATRIX_BLOCK; i += 1) {
                        sum += (int32_t)(int8_t)x[i] * numbers[i / 2 * 2 * width + 2 * column + i % 2];
                    }
                    lanes[column % 8] += (float)sum * (float)(int8_t)y[column];
                }
            }
            float sum = total(lanes);
            struct row_sums from = {row, 1, &sum, &error};
            size_t at = query * stride + row - first;
            add_to_scores(
                from, row, row + 1, u->scales, v->scales, multipliers[query], inflation_of(0), scores + at,
                bounds == NULL ? NULL : bounds + at);
        }
    }
}
