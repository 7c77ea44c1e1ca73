/* GEMV in bfloat16 and int8: a few rows times a weight matrix, for decode steps. The time is that of reading the weights.

   The weights are in the checkpoint's order, (outputs, inputs), so that a matrix library can multiply many rows by the same
   copy. For a few rows libraries reach half of the memory's bandwidth: they rely on the hardware prefetcher, which stops at
   each page, and they read the weights of several outputs side by side, which evict each other from the cache. This code
   streams the weights, one output after the other, with software prefetch.

   One register accumulates one output of one row. Sixteen such accumulators are summed at a time, always in the same
   order, so a row's result does not depend on the other rows. Called by engine/ops/gemv.py. */

#include "bf16.h"

typedef struct {
    void *rows;             /* (count, inputs): bfloat16; for int8, scratch for the quantised rows */
    const void *weight;     /* (outputs, inputs): bfloat16 or int8 */
    const float *activations; /* int8: (count, inputs), the rows to quantise */
    float *absmax;          /* int8: (count), scratch for the absmax of each row */
    const float *scales;    /* int8: (outputs), the weight scales */
    const int32_t *shift;   /* int8: (outputs), 128 times the sum of an output's weights */
    void *out;              /* (count, outputs): bfloat16; for int8, float32 */
    int64_t count, outputs, inputs;
} GemvArgs;

#define OFFSET(field) offsetof(GemvArgs, field)
EXPORT_LAYOUT(gemv_args, sizeof(GemvArgs), OFFSET(rows), OFFSET(weight), OFFSET(activations), OFFSET(absmax),
              OFFSET(scales), OFFSET(shift), OFFSET(out), OFFSET(count), OFFSET(outputs), OFFSET(inputs));

#define SUMS 16    /* accumulators that are summed at a time */
#define LINE 64    /* bytes of a vector register, and of a cache line */
#define GROUP 8    /* rows that are multiplied at a time */
#define AHEAD 2048 /* prefetch distance in bytes; twice and half of it take as long */

/* Limits that Python reads: outputs must be a multiple of the first, the bytes of `inputs` of the second. */
const int64_t gemv_outputs_multiple = SUMS, gemv_line_bytes = LINE;

#ifdef TARGET_AVX512_BF16
#define TARGET_AVX512_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

#define DOT_BF16(sum, row, weight) (__m512i)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(row), (__m512bh)(weight))
#define DOT_INT8(sum, row, weight) _mm512_dpbusd_epi32(sum, row, weight)
#define ADD_BF16(a, b) (__m512i)_mm512_add_ps((__m512)(a), (__m512)(b))
#define ADD_INT8(a, b) _mm512_add_epi32(a, b)
#define LOAD_BF16(line) _mm512_loadu_si512(line)
/* The VNNI dot product takes unsigned times signed bytes: 128 is added to the row's bytes here (an exclusive or), and
   128 times the sum of the weights (`shift`) is subtracted from the result. */
#define LOAD_INT8(line) _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8(-128))

/* `sum_lanes_*`: the sum of the lanes of each of sixteen vectors, in the order of the vectors.
   `tile_*`: the products of `count` rows with SUMS / count outputs, whose weights have `bytes` each. The result is in the
   order of the rows, and for each row in the order of the outputs. */
#define DEFINE_TILE(kind, TARGET, DOT, ADD, LOAD)                                                                   \
    TARGET INLINE __m512i sum_lanes_##kind(__m512i *v) {                                                            \
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)                                                         \
            v[i] = ADD(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1])); \
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)                                                         \
            v[i] = ADD(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1])); \
        _Pragma("GCC unroll 2") for (int i = 0; i < 2; i++)                                                         \
            v[i] = ADD(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x88),                                          \
                       _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xdd));                                         \
        return ADD(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xdd));                 \
    }                                                                                                               \
                                                                                                                    \
    TARGET INLINE __m512i tile_##kind(const char *const *rows, const char *weight, int64_t bytes, int count) {      \
        __m512i sums[SUMS];                                                                                         \
        _Pragma("GCC unroll 16") for (int output = 0; output < SUMS / count; output++, weight += bytes) {           \
            __m512i sum[GROUP];                                                                                     \
            _Pragma("GCC unroll 8") for (int r = 0; r < count; r++) sum[r] = _mm512_setzero_si512();                \
            for (int64_t at = 0; at < bytes; at += LINE) {                                                          \
                _mm_prefetch(weight + at + AHEAD, _MM_HINT_T0);                                                     \
                const __m512i line = _mm512_loadu_si512(weight + at);                                               \
                _Pragma("GCC unroll 8") for (int r = 0; r < count; r++)                                             \
                    sum[r] = DOT(sum[r], LOAD(rows[r] + at), line);                                                 \
            }                                                                                                       \
            _Pragma("GCC unroll 8") for (int r = 0; r < count; r++) sums[r * (SUMS / count) + output] = sum[r];     \
        }                                                                                                           \
        return sum_lanes_##kind(sums);                                                                              \
    }

DEFINE_TILE(bf16, TARGET_AVX512_BF16, DOT_BF16, ADD_BF16, LOAD_BF16)
DEFINE_TILE(int8, TARGET_AVX512_VNNI, DOT_INT8, ADD_INT8, LOAD_INT8)

/* Pointers to the `count` rows of a tile, from `first` on. Behind the last row it is the last row again; its result is
   not stored twice. */
INLINE void find_rows(const GemvArgs *args, int64_t first, int64_t bytes, int count, const char **rows) {
    for (int r = 0; r < count; r++)
        rows[r] = (const char *)args->rows + bytes * (first + r < args->count ? first + r : args->count - 1);
}

/* `store_tile_*`: compute a tile and store it to `out`. */
TARGET_AVX512_BF16 INLINE void store_tile_bf16(const GemvArgs *args, int64_t first, int64_t output, int count) {
    const int64_t bytes = 2 * args->inputs;
    const char *rows[GROUP];
    uint16_t found[SUMS];
    find_rows(args, first, bytes, count, rows);
    const __m512i sums = tile_bf16(rows, (const char *)args->weight + bytes * output, bytes, count);
    _mm256_storeu_si256((__m256i *)found, (__m256i)_mm512_cvtneps_pbh((__m512)sums));
    for (int r = 0; r < count && first + r < args->count; r++) {
        uint16_t *to = (uint16_t *)args->out + (first + r) * args->outputs;
        memcpy(to + output, found + r * SUMS / count, sizeof found / count);
    }
}

TARGET_AVX512_VNNI INLINE void store_tile_int8(const GemvArgs *args, int64_t first, int64_t output, int count) {
    const char *rows[GROUP];
    int32_t found[SUMS];
    find_rows(args, first, args->inputs, count, rows);
    _mm512_storeu_si512(found, tile_int8(rows, (const char *)args->weight + args->inputs * output, args->inputs, count));
    for (int r = 0; r < count && first + r < args->count; r++) {
        const float factor = args->absmax[first + r] / 127.0f;
        float *to = (float *)args->out + (first + r) * args->outputs;
        for (int64_t at = output, i = r * SUMS / count; at < output + SUMS / count; at++, i++)
            to[at] = (float)(found[i] - args->shift[at]) * factor * args->scales[at];
    }
}

/* SUMS outputs of all rows. The switch makes `count` a compile-time constant of each tile. */
#define DEFINE_OUTPUTS(kind, TARGET)                                              \
    TARGET static void outputs_##kind(const GemvArgs *args, int64_t output) {     \
        for (int64_t first = 0; first < args->count; first += GROUP) {            \
            const int64_t left = args->count - first;                             \
            const int count = left > 4 ? 8 : left > 2 ? 4 : left > 1 ? 2 : 1;     \
            for (int64_t at = output; at < output + SUMS; at += SUMS / count)     \
                switch (count) {                                                  \
                case 1: store_tile_##kind(args, first, at, 1); break;             \
                case 2: store_tile_##kind(args, first, at, 2); break;             \
                case 4: store_tile_##kind(args, first, at, 4); break;             \
                default: store_tile_##kind(args, first, at, 8);                   \
                }                                                                 \
        }                                                                         \
    }

DEFINE_OUTPUTS(bf16, TARGET_AVX512_BF16)
DEFINE_OUTPUTS(int8, TARGET_AVX512_VNNI)

int has_gemv_bf16(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16"); }
int has_gemv_int8(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"); }
#else
int has_gemv_bf16(void) { return 0; }
int has_gemv_int8(void) { return 0; }
static void outputs_bf16(const GemvArgs *args, int64_t output) { (void)args, (void)output; }
static void outputs_int8(const GemvArgs *args, int64_t output) { (void)args, (void)output; }
#endif

/* Only where has_gemv_bf16(). */
void gemv_bf16(const GemvArgs *args) {
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < args->outputs; output += SUMS)
        outputs_bf16(args, output);
}

/* Only where has_gemv_int8(). */
void gemv_int8(const GemvArgs *args) {
    quantize(args->activations, args->rows, args->absmax, args->count, args->inputs);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < args->outputs; output += SUMS)
        outputs_int8(args, output);
}
