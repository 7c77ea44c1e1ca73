/* What a decoder computes of each row by itself, between its products: norms, gates, and the scales of eight bits. In
   torch each is a handful of passes over memory, or of kernels of one thread.

   Called by engine/ops/native_ops.py and engine/ops/gemv.py. There are `count` rows of `size` numbers. */

#include "bf16.h"

#define GRAIN 4096 /* numbers for which another thread is worth its waking */

typedef struct {
    const void *from;
    const void *weight; /* of a norm, or of sums' scales: (size) */
    void *to;
    float *largest; /* of eight bits: (count) */
    int64_t count, size;
    float epsilon;
    int is_16;
} Rows;

INLINE void norm_one(const Rows *all, int64_t row, int is_16) {
    const int64_t from = row * all->size;
    const float factor = to_root_mean_square_1(all->from, from, all->size, all->epsilon, is_16);
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++)
        put(all->to, from + i, at(all->from, from + i, is_16) * factor * at(all->weight, i, is_16), is_16);
}

INLINE void gate_one(const Rows *all, int64_t row, int is_16) {
    const int64_t gates = 2 * row * all->size, ups = gates + all->size;
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++) {
        const float gate = at(all->from, gates + i, is_16), small = exponential(-fabsf(gate));
        const float sigmoid = (gate < 0 ? small : 1.0f) / (1.0f + small);
        put(all->to, row * all->size + i, gate * sigmoid * at(all->from, ups + i, is_16), is_16);
    }
}

INLINE void norm_any(const Rows *all, int64_t row) { all->is_16 ? norm_one(all, row, 1) : norm_one(all, row, 0); }

INLINE void gate_any(const Rows *all, int64_t row) { all->is_16 ? gate_one(all, row, 1) : gate_one(all, row, 0); }

INLINE float largest_of(const Rows *all, int64_t row) {
    const float *from = (const float *)all->from + row * all->size;
    float largest;
    uint32_t most = 0; /* without their sign, numbers are in the order of their bits, and behind all what is none */
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < all->size; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&largest, &most, sizeof largest);
    return all->largest[row] = largest < 1e-12f ? 1e-12f : largest;
}

INLINE void scale_one(const Rows *all, int64_t row) {
    const float *from = (const float *)all->from + row * all->size;
    float *to = (float *)all->to + row * all->size;
    const float largest = largest_of(all, row);
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++)
        to[i] = from[i] / largest;
}

INLINE void quantize_one(const Rows *all, int64_t row) {
    const float *from = (const float *)all->from + row * all->size;
    int8_t *to = (int8_t *)all->to + row * all->size;
    const float largest = largest_of(all, row);
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++) {
        const float moved = from[i] / largest * 127.0f + 12582912.0f; /* 1.5 * 2^23: its last bits are the number */
        int32_t bits;
        memcpy(&bits, &moved, sizeof bits);
        to[i] = (int8_t)bits; /* of what is no number, any: its row's largest is none */
    }
}

INLINE void rescale_one(const Rows *all, int64_t row) {
    float *to = (float *)all->to + row * all->size;
    const float largest = all->largest[row];
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++)
        to[i] *= largest;
}

INLINE void dequantize_one(const Rows *all, int64_t row) {
    const int32_t *from = (const int32_t *)all->from + row * all->size;
    float *to = (float *)all->to + row * all->size;
    const float *scales = all->weight, factor = all->largest[row] / 127.0f;
#pragma omp simd
    for (int64_t i = 0; i < all->size; i++)
        to[i] = (float)from[i] * factor * scales[i];
}

VERSIONS(norm_any, Rows)
VERSIONS(gate_any, Rows)
VERSIONS(scale_one, Rows)
VERSIONS(rescale_one, Rows)
VERSIONS(quantize_one, Rows)
VERSIONS(dequantize_one, Rows)

static void each(const Rows *all, void (*const versions[])(const Rows *, int64_t)) {
#pragma omp parallel for schedule(static) if (all->count > 1 && all->count * all->size > GRAIN)
    for (int64_t row = 0; row < all->count; row++)
        versions[version](all, row);
}

void norm(const void *from, const void *weight, void *to, int64_t count, int64_t size, float epsilon, int is_16) {
    const Rows all = {
        .from = from, .weight = weight, .to = to, .count = count, .size = size, .epsilon = epsilon, .is_16 = is_16,
    };
    each(&all, norm_any_versions);
}

/* Rows of `size` gates and `size` numbers that they open for. */
void gate(const void *from, void *to, int64_t count, int64_t size, int is_16) {
    each(&(Rows){.from = from, .to = to, .count = count, .size = size, .is_16 = is_16}, gate_any_versions);
}

/* Rows whose largest magnitude is 1, and what it was. */
void scale(const float *from, float *to, float *largest, int64_t count, int64_t size) {
    each(&(Rows){.from = from, .to = to, .largest = largest, .count = count, .size = size}, scale_one_versions);
}

void rescale(float *rows, float *largest, int64_t count, int64_t size) {
    each(&(Rows){.to = rows, .largest = largest, .count = count, .size = size}, rescale_one_versions);
}

/* Rows as bytes from -127 to 127, and what 127 stands for in each. */
void quantize(const float *from, int8_t *to, float *largest, int64_t count, int64_t size) {
    each(&(Rows){.from = from, .to = to, .largest = largest, .count = count, .size = size}, quantize_one_versions);
}

/* Sums of products of bytes as the numbers that they stand for. */
void dequantize(const int32_t *from, float *to, float *largest, const float *scales, int64_t count, int64_t size) {
    const Rows all = {.from = from, .to = to, .largest = largest, .weight = scales, .count = count, .size = size};
    each(&all, dequantize_one_versions);
}
