/* A few rows times weights: a decoder's step, which takes as long as reading the weights once.

   Weights lie as checkpoints have them, (outputs, inputs), so that a matrix library can multiply many rows by the same
   ones. For a few rows libraries read them at half of the memory's speed: they leave it to the processor to fetch
   ahead, which ends at the page, and read several outputs' weights side by side, which drive each other out of the
   cache.

   Sixteen sums are computed at a time, of one row or of up to eight, each in a vector of its own and in the same order:
   what a row gives does not depend on its neighbours. Called by engine/ops/gemv.py. */

#include "bf16.h"

typedef struct {
    void *rows;           /* (count, inputs): bfloat16; or room for bytes from -127 to 127 */
    const void *weight;   /* (outputs, inputs), of the same kind */
    const float *numbers; /* of bytes: (count, inputs), what rows are made of */
    float *largest;       /* of bytes: (count), room for what 127 stands for in a row */
    const float *scales;  /* of bytes: (outputs), what 1 stands for in a weight */
    const int32_t *shift; /* of bytes: (outputs), the sum of an output's weights times 128 */
    void *out;            /* (count, outputs): bfloat16, or float32 */
    int64_t count, outputs, inputs;
} Product;

#define SUMS 16    /* of which outputs are a multiple; known to engine/ops/gemv.py, as is the next */
#define LINE 64    /* bytes of a vector, of which the inputs' bytes are a multiple */
#define GROUP 8    /* rows that are multiplied at once */
#define AHEAD 2048 /* bytes that are fetched before they are needed; with twice or half as many it takes as long */

#ifdef HALVES
#define BYTES __attribute__((target("avx512f,avx512bw,avx512vnni")))

#define TIMES_HALVES(sum, row, weight) \
    (__m512i)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(row), (__m512bh)(weight))
#define TIMES_BYTES(sum, row, weight) _mm512_dpbusd_epi32(sum, row, weight)
#define PLUS_HALVES(a, b) (__m512i)_mm512_add_ps((__m512)(a), (__m512)(b))
#define PLUS_BYTES(a, b) _mm512_add_epi32(a, b)
#define READ_HALVES(line) _mm512_loadu_si512(line)
#define READ_BYTES(line) _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8(-128)) /* from 1 to 255 */

/* `sixteen_*`: of the lanes of sixteen vectors the sums, in the vectors' order.
   `tile_*`: of `count` rows and SUMS / count outputs, each with its weights in `bytes`: an output's sums for all rows
   stand SUMS / count apart. */
#define TILES(kind, KIND, TIMES, PLUS, READ)                                                                        \
    KIND INLINE __m512i sixteen_##kind(__m512i *v) {                                                                \
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)                                                         \
            v[i] = PLUS(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1])); \
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)                                                         \
            v[i] = PLUS(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1])); \
        _Pragma("GCC unroll 2") for (int i = 0; i < 2; i++)                                                         \
            v[i] = PLUS(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x88),                                         \
                        _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xdd));                                        \
        return PLUS(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xdd));                \
    }                                                                                                               \
                                                                                                                    \
    KIND INLINE __m512i tile_##kind(const char *const *rows, const char *weight, int64_t bytes, int count) {        \
        __m512i sums[SUMS];                                                                                         \
        _Pragma("GCC unroll 16") for (int output = 0; output < SUMS / count; output++, weight += bytes) {           \
            __m512i sum[GROUP];                                                                                     \
            _Pragma("GCC unroll 8") for (int r = 0; r < count; r++) sum[r] = _mm512_setzero_si512();                \
            for (int64_t at = 0; at < bytes; at += LINE) {                                                          \
                _mm_prefetch(weight + at + AHEAD, _MM_HINT_T0);                                                     \
                const __m512i some = _mm512_loadu_si512(weight + at);                                               \
                _Pragma("GCC unroll 8") for (int r = 0; r < count; r++)                                             \
                    sum[r] = TIMES(sum[r], READ(rows[r] + at), some);                                               \
            }                                                                                                       \
            _Pragma("GCC unroll 8") for (int r = 0; r < count; r++) sums[r * (SUMS / count) + output] = sum[r];     \
        }                                                                                                           \
        return sixteen_##kind(sums);                                                                                \
    }

TILES(halves, HALVES, TIMES_HALVES, PLUS_HALVES, READ_HALVES)
TILES(bytes, BYTES, TIMES_BYTES, PLUS_BYTES, READ_BYTES)

/* Where the rows of a tile are: `count` of them from `first` on, the last one again where there are fewer. */
INLINE void find_rows(const Product *all, int64_t first, int64_t bytes, int count, const char **rows) {
    for (int r = 0; r < count; r++)
        rows[r] = (const char *)all->rows + bytes * (first + r < all->count ? first + r : all->count - 1);
}

HALVES INLINE void halves_of(const Product *all, int64_t first, int64_t output, int count) {
    const int64_t bytes = 2 * all->inputs;
    const char *rows[GROUP];
    uint16_t found[SUMS];
    find_rows(all, first, bytes, count, rows);
    const __m512i sums = tile_halves(rows, (const char *)all->weight + bytes * output, bytes, count);
    _mm256_storeu_si256((__m256i *)found, (__m256i)_mm512_cvtneps_pbh((__m512)sums));
    for (int r = 0; r < count && first + r < all->count; r++) {
        uint16_t *to = (uint16_t *)all->out + (first + r) * all->outputs;
        memcpy(to + output, found + r * SUMS / count, sizeof found / count);
    }
}

BYTES INLINE void bytes_of(const Product *all, int64_t first, int64_t output, int count) {
    const char *rows[GROUP];
    int32_t found[SUMS];
    find_rows(all, first, all->inputs, count, rows);
    _mm512_storeu_si512(found, tile_bytes(rows, (const char *)all->weight + all->inputs * output, all->inputs, count));
    for (int r = 0; r < count && first + r < all->count; r++) {
        const float factor = all->largest[first + r] / 127.0f;
        float *to = (float *)all->out + (first + r) * all->outputs;
        for (int64_t at = output, i = r * SUMS / count; at < output + SUMS / count; at++, i++)
            to[at] = (float)(found[i] - all->shift[at]) * factor * all->scales[at];
    }
}

/* Sixteen outputs of all rows. */
#define EACH(kind, KIND)                                                          \
    KIND static void each_of_##kind(const Product *all, int64_t output) {         \
        for (int64_t first = 0; first < all->count; first += GROUP) {             \
            const int64_t left = all->count - first;                              \
            const int count = left > 4 ? 8 : left > 2 ? 4 : left > 1 ? 2 : 1;     \
            for (int64_t at = output; at < output + SUMS; at += SUMS / count)     \
                switch (count) { /* so that each is compiled for its own count */ \
                case 1: kind##_of(all, first, at, 1); break;                      \
                case 2: kind##_of(all, first, at, 2); break;                      \
                case 4: kind##_of(all, first, at, 4); break;                      \
                default: kind##_of(all, first, at, 8);                            \
                }                                                                 \
        }                                                                         \
    }

EACH(halves, HALVES)
EACH(bytes, BYTES)

int multiplies_halves(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16"); }
int multiplies_bytes(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"); }
#else
int multiplies_halves(void) { return 0; }
int multiplies_bytes(void) { return 0; }
static void each_of_halves(const Product *all, int64_t output) { (void)all, (void)output; }
static void each_of_bytes(const Product *all, int64_t output) { (void)all, (void)output; }
#endif

void multiply_halves(const Product *all) {
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < all->outputs; output += SUMS)
        each_of_halves(all, output);
}

void multiply_bytes(const Product *all) {
    quantize(all->numbers, all->rows, all->largest, all->count, all->inputs);
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < all->outputs; output += SUMS)
        each_of_bytes(all, output);
}
