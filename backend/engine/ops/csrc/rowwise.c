/* Kernels that compute each row by itself: RMSNorm, SiLU gating, and int8 quantisation with one scale a row.

   In torch each of these is several passes over memory, or several single-threaded kernels.
   Called by engine/ops/native_ops.py and engine/ops/gemv.py. There are `count` rows of `size` numbers. */

#include "bf16.h"

#define GRAIN 4096   /* numbers in all rows from which waking a second thread pays */
#define MIN_ABSMAX 1e-12f /* as MIN_ABSMAX in engine/ops/torch_ops.py: a row of zeros is divided by this */

typedef struct {
    const void *from;
    const void *weight; /* RMSNorm: its weight (size). dequantize: the weight scales (size) */
    void *to;
    float *absmax; /* quantisation: the largest magnitude of each row (count) */
    int64_t count, size;
    float epsilon;
    int is_bf16;
} RowArgs;

INLINE void rms_norm_row(const RowArgs *args, int64_t row, int is_bf16) {
    const int64_t from = row * args->size;
    const float factor = inverse_rms(args->from, from, args->size, args->epsilon, is_bf16);
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++)
        store(args->to, from + i, load(args->from, from + i, is_bf16) * factor * load(args->weight, i, is_bf16), is_bf16);
}

/* silu(gate) * up, where silu(x) = x * sigmoid(x). exp of -|gate| does not overflow. */
INLINE void silu_mul_row(const RowArgs *args, int64_t row, int is_bf16) {
    const int64_t gates = 2 * row * args->size, ups = gates + args->size;
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++) {
        const float gate = load(args->from, gates + i, is_bf16), small = exp_nonpositive(-fabsf(gate));
        const float sigmoid = (gate < 0 ? small : 1.0f) / (1.0f + small);
        store(args->to, row * args->size + i, gate * sigmoid * load(args->from, ups + i, is_bf16), is_bf16);
    }
}

/* The compiler knows the dtype in each branch. */
INLINE void rms_norm_any(const RowArgs *args, int64_t row) {
    args->is_bf16 ? rms_norm_row(args, row, 1) : rms_norm_row(args, row, 0);
}

INLINE void silu_mul_any(const RowArgs *args, int64_t row) {
    args->is_bf16 ? silu_mul_row(args, row, 1) : silu_mul_row(args, row, 0);
}

/* The largest magnitude of a row, also stored to `absmax`; NaN or infinity where the row has one. Without the sign bit,
   floats are in the order of their bits as integers, and NaN comes after infinity. */
INLINE float absmax_of(const RowArgs *args, int64_t row) {
    const float *from = (const float *)args->from + row * args->size;
    float absmax;
    uint32_t most = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < args->size; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&absmax, &most, sizeof absmax);
    return args->absmax[row] = absmax < MIN_ABSMAX ? MIN_ABSMAX : absmax;
}

INLINE void scale_row(const RowArgs *args, int64_t row) {
    const float *from = (const float *)args->from + row * args->size;
    float *to = (float *)args->to + row * args->size;
    const float absmax = absmax_of(args, row);
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++)
        to[i] = from[i] / absmax;
}

/* Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the last bits. NaN gives any byte; `absmax` of its
   row is NaN, and so is everything that is computed from it. */
INLINE void quantize_row(const RowArgs *args, int64_t row) {
    const float *from = (const float *)args->from + row * args->size;
    int8_t *to = (int8_t *)args->to + row * args->size;
    const float absmax = absmax_of(args, row);
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++) {
        const float shifted = from[i] / absmax * 127.0f + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        to[i] = (int8_t)bits;
    }
}

INLINE void rescale_row(const RowArgs *args, int64_t row) {
    float *to = (float *)args->to + row * args->size;
    const float absmax = args->absmax[row];
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++)
        to[i] *= absmax;
}

INLINE void dequantize_row(const RowArgs *args, int64_t row) {
    const int32_t *from = (const int32_t *)args->from + row * args->size;
    float *to = (float *)args->to + row * args->size;
    const float *scales = args->weight, factor = args->absmax[row] / 127.0f;
#pragma omp simd
    for (int64_t i = 0; i < args->size; i++)
        to[i] = (float)from[i] * factor * scales[i];
}

TWO_VARIANTS(rms_norm_any, RowArgs)
TWO_VARIANTS(silu_mul_any, RowArgs)
TWO_VARIANTS(scale_row, RowArgs)
TWO_VARIANTS(rescale_row, RowArgs)
TWO_VARIANTS(quantize_row, RowArgs)
TWO_VARIANTS(dequantize_row, RowArgs)

static void for_each_row(const RowArgs *args, void (*const variants[])(const RowArgs *, int64_t)) {
#pragma omp parallel for schedule(static) if (args->count > 1 && args->count * args->size > GRAIN)
    for (int64_t row = 0; row < args->count; row++)
        variants[instruction_set](args, row);
}

void rms_norm(const void *from, const void *weight, void *to, int64_t count, int64_t size, float epsilon, int is_bf16) {
    const RowArgs args = {
        .from = from, .weight = weight, .to = to, .count = count, .size = size, .epsilon = epsilon, .is_bf16 = is_bf16,
    };
    for_each_row(&args, rms_norm_any_variants);
}

/* Rows of `size` gates followed by `size` ups, (count, 2 * size) -> (count, size). */
void silu_mul(const void *from, void *to, int64_t count, int64_t size, int is_bf16) {
    const RowArgs args = {.from = from, .to = to, .count = count, .size = size, .is_bf16 = is_bf16};
    for_each_row(&args, silu_mul_any_variants);
}

/* Each row divided by its absmax. */
void scale_by_absmax(const float *from, float *to, float *absmax, int64_t count, int64_t size) {
    const RowArgs args = {.from = from, .to = to, .absmax = absmax, .count = count, .size = size};
    for_each_row(&args, scale_row_variants);
}

/* Each row multiplied by its absmax, in place. */
void rescale(float *rows, float *absmax, int64_t count, int64_t size) {
    const RowArgs args = {.to = rows, .absmax = absmax, .count = count, .size = size};
    for_each_row(&args, rescale_row_variants);
}

/* Each row as int8 from -127 to 127, and its absmax, which 127 stands for. */
void quantize(const float *from, int8_t *to, float *absmax, int64_t count, int64_t size) {
    const RowArgs args = {.from = from, .to = to, .absmax = absmax, .count = count, .size = size};
    for_each_row(&args, quantize_row_variants);
}

/* int32 accumulators of an int8 product (count, size = outputs) -> float32. `scales`: of the weights (size). */
void dequantize(const int32_t *from, float *to, float *absmax, const float *scales, int64_t count, int64_t size) {
    const RowArgs args = {.from = from, .to = to, .absmax = absmax, .weight = scales, .count = count, .size = size};
    for_each_row(&args, dequantize_row_variants);
}
