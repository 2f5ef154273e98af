#include "codebook.h"
#include "include/scan.h"
#include "lookup.h"

#include <limits.h>

#pragma STDC FP_CONTRACT OFF

struct lorif_vectors lorif_vectors_of(int encoding, const uint8_t *payload, size_t rows, size_t length) {
    int scaled = encoding != LORIF_F32 && encoding != LORIF_BF16;
    const uint8_t *scales = scaled ? payload + lorif_codes_size(encoding, rows, length) : NULL;
    return (struct lorif_vectors){payload, scales, rows, length, encoding};
}

size_t lorif_padded_length(size_t length) {
    return (length + 7) / 8 * 8;
}

void lorif_pad_vector(const float *values, size_t length, float *padded) {
    size_t whole = length / 8 * 8, rest = length - whole;
    for (size_t i = 0; i < whole; i += 1) padded[i] = values[i];
    if (rest == 0) return;
    for (size_t i = 0; i < 8 - rest; i += 1) padded[whole + i] = 0;
    for (size_t i = 0; i < rest; i += 1) padded[whole + 8 - rest + i] = values[whole + i];
}

static size_t coordinates_per_lookup(int bits) {
    return bits == 1 ? 4 : bits == 2 ? 2 : 1;
}

size_t lorif_lookup_count(int bits, size_t length) {
    size_t coordinates = coordinates_per_lookup(bits);
    return length / coordinates + (length % coordinates != 0);
}

size_t lorif_block_count(int bits, size_t length) {
    return (lorif_lookup_count(bits, length) + LORIF_BLOCK_LOOKUPS - 1) / LORIF_BLOCK_LOOKUPS;
}

size_t lorif_table_bytes(int bits, int wide, size_t length) {
    return lorif_lookup_count(bits, length) * (wide ? 32 : 16);
}

int lorif_exponent(const float *values, size_t count) {
    float largest = 0;
    for (size_t i = 0; i < count; i += 1) {
        float magnitude = fabsf(values[i]);
        if (magnitude > largest && magnitude < INFINITY) largest = magnitude;
    }
    if (!(largest > 0)) return INT_MIN;
    int exponent;
    frexpf(largest, &exponent);
    return exponent;
}

/// The exact shares (up to 2^-50 of the sum of magnitudes) of look-up `lookup`, by index.
static void fill_shares(
    int bits, const float *values, size_t length, size_t stride, double factor, size_t lookup, double shares[16]) {
    size_t per = coordinates_per_lookup(bits);
    double x[4] = {0};
    for (size_t k = 0; k < per && lookup * per + k < length; k += 1) {
        x[k] = (double)values[(lookup * per + k) * stride] * factor;
    }
    for (unsigned index = 0; index < 16; index += 1) {
        unsigned of = bits == 3 ? index & 7 : index;
        double share = 0;
        for (size_t k = 0; k < per; k += 1) share += x[k] * (double)lorif_levels[bits][code_of_index(bits, of, k)];
        shares[index] = share;
    }
}

static float rounded_up(double value) {
    float near = (float)value;
    return (double)near < value ? nextafterf(near, INFINITY) : near;
}

void lorif_prepare_table(
    int bits, int wide, const float *values, size_t length, size_t stride, int exponent, size_t slack_steps,
    uint8_t *entries, float *steps, float *error) {
    size_t lookups = lorif_lookup_count(bits, length), blocks = lorif_block_count(bits, length);
    double top = wide ? LORIF_WIDE_OFFSET - 1 : LORIF_NARROW_OFFSET - 1;
    int offset = wide ? LORIF_WIDE_OFFSET : LORIF_NARROW_OFFSET;
    double factor = ldexp(1, exponent);
    double total_error = 0, total_magnitude = 0, total_size = 0;
    int finite = 1;
    for (size_t i = 0; i < length; i += 1) finite &= isfinite(values[i * stride]) != 0;
    for (size_t block = 0; block < blocks; block += 1) {
        size_t first = block * LORIF_BLOCK_LOOKUPS;
        size_t end = lookups - first < LORIF_BLOCK_LOOKUPS ? lookups : first + LORIF_BLOCK_LOOKUPS;
        double shares[LORIF_BLOCK_LOOKUPS][16];
        double largest[LORIF_BLOCK_LOOKUPS];
        double peak = 0;
        for (size_t lookup = first; lookup < end; lookup += 1) {
            double *of = shares[lookup - first];
            fill_shares(bits, values, length, stride, finite ? factor : 0, lookup, of);
            double most = 0;
            for (int index = 0; index < 16; index += 1) most = fabs(of[index]) > most ? fabs(of[index]) : most;
            largest[lookup - first] = most;
            total_size += most;
            if (most > peak) peak = most;
        }
        float step = peak < 0x1p-100 ? 0 : rounded_up(peak / top);
        double inverse = step > 0 ? 1 / (double)step : 0;
        for (size_t lookup = first; lookup < end; lookup += 1) {
            double worst = 0, magnitude = 0;
            for (int index = 0; index < 16; index += 1) {
                double share = shares[lookup - first][index];
                // Adding the offset first makes truncation rounding; the
                // result is within the top by choice of the step.
                int entry = (int)(share * inverse + (double)offset + 0.5);
                if (entry > offset + (int)top) entry = offset + (int)top;
                if (entry < offset - (int)top) entry = offset - (int)top;
                double kept = (double)(entry - offset) * (double)step;
                double miss = fabs(kept - share);
                if (miss > worst) worst = miss;
                if (fabs(kept) > magnitude) magnitude = fabs(kept);
                uint8_t *table = entries + lookup * (wide ? 32 : 16);
                table[index] = (uint8_t)(entry & 63);
                if (wide) table[16 + index] = (uint8_t)(entry >> 6);
            }
            total_error += worst;
            total_magnitude += magnitude;
        }
        steps[block] = finite ? step : NAN;
    }
    // Two roundings for each block (its product, its addition) and those that are to come; the last term covers the
    // arithmetic in double here.
    double roundings = (double)(2 * blocks + slack_steps + 1) * 0x1p-24 * (1 + 0x1p-10);
    double bound = total_error + roundings * total_magnitude + (total_size + total_magnitude) * 0x1p-44;
    *error = finite ? rounded_up(bound * (1 + 0x1p-20)) : NAN;
}
