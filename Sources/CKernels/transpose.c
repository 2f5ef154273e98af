#include "kernels.h"

void lorif_components_apart(const float *values, size_t rows, size_t dimension, size_t rank, float *out) {
    for (size_t row = 0; row < rows; row += 1) {
        const float *matrix = values + row * dimension * rank;
        for (size_t component = 0; component < rank; component += 1) {
            float *vector = out + (component * rows + row) * dimension;
            for (size_t i = 0; i < dimension; i += 1) vector[i] = matrix[i * rank + component];
        }
    }
}

void lorif_components_together(const float *values, size_t rows, size_t dimension, size_t rank, float *out) {
    for (size_t row = 0; row < rows; row += 1) {
        float *matrix = out + row * dimension * rank;
        for (size_t component = 0; component < rank; component += 1) {
            const float *vector = values + (component * rows + row) * dimension;
            for (size_t i = 0; i < dimension; i += 1) matrix[i * rank + component] = vector[i];
        }
    }
}
