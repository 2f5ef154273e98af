#include "words.h"

#include <limits.h>

#pragma STDC FP_CONTRACT OFF

static int all_finite(const float *values, size_t count) {
    int finite = 1;
    for (size_t i = 0; i < count; i += 1) finite &= isfinite(values[i]) != 0;
    return finite;
}

size_t lorif_word_count(size_t length) {
    return (length + WORD_GROUP - 1) / WORD_GROUP * WORD_GROUP * 2;
}

void lorif_prepare_words(const float *values, size_t length, int16_t *halves, float *factor) {
    memset(halves, 0, lorif_word_count(length) * sizeof *halves);
    int exponent = lorif_exponent(values, length);
    if (!all_finite(values, length) || exponent == INT_MIN) {
        *factor = all_finite(values, length) ? 0 : NAN;
        return;
    }
    *factor = ldexpf(1, exponent - 1);
    double steps = ldexp(1, 29 - exponent);
    size_t whole = length / WORD_GROUP * WORD_GROUP, padding = WORD_GROUP - (length - whole);
    for (size_t i = 0; i < length; i += 1) {
        int32_t number = (int32_t)rint((double)values[i] * steps);
        int32_t high = (number + (1 << 14)) >> 15;
        size_t place = i < whole ? i : i + padding, in_group = place % WORD_GROUP;
        int16_t *group = halves + place / WORD_GROUP * WORD_GROUP * 2;
        size_t at = in_group % 2 * (WORD_GROUP / 2) + in_group / 2;
        group[at] = (int16_t)high;
        group[WORD_GROUP + at] = (int16_t)(number - high * (1 << 15));
    }
}

static size_t padded_columns(size_t columns) {
    return (columns + MATRIX_COLUMNS - 1) / MATRIX_COLUMNS * MATRIX_COLUMNS;
}

size_t lorif_word_matrix_count(size_t rows, size_t columns) {
    return (rows + 1) / 2 * 2 * padded_columns(columns);
}

void lorif_prepare_word_matrix(
    const float *values, size_t rows, size_t columns, int16_t *numbers, double *multiplier) {
    size_t width = padded_columns(columns);
    memset(numbers, 0, lorif_word_matrix_count(rows, columns) * sizeof *numbers);
    int exponent = lorif_exponent(values, rows * columns);
    if (!all_finite(values, rows * columns) || exponent == INT_MIN) {
        *multiplier = all_finite(values, rows * columns) ? 0 : NAN;
        return;
    }
    *multiplier = ldexp(1, exponent - 14);
    double steps = ldexp(1, 14 - exponent);
    for (size_t row = 0; row < rows; row += 1) {
        int16_t *target = numbers + row / 2 * 2 * width + row % 2;
        const float *source = values + row * columns;
        for (size_t column = 0; column < columns; column += 1) {
            target[2 * column] = (int16_t)rint((double)source[column] * steps);
        }
    }
}
