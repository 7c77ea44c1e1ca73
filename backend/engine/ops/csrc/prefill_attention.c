/* Attention of many queries in bfloat16: the decoder's prefill, and the windows of the audio encoder.

   Rows of different lengths are packed one after the other without padding (variable-length attention); each row attends
   to itself. By a matrix library this is three products, between which the scores go to memory in bfloat16 and back; the
   third product corrects what that rounding removed. Here the scores of a few queries stay in float32 and in the cache
   until they are softmax weights, and blocks that the causal mask hides are not computed. Keys and values are repacked
   once for all queries that share them.

   Called by engine/ops/prefill_attention.py. */

#include "bf16.h"

typedef struct {
    const uint16_t *queries;       /* (tokens, heads, size), packed row after row */
    const uint16_t *keys, *values; /* the first row's; row r is at kv_offsets[r], with the strides below */
    void *out;                     /* (tokens, heads, size) */
    char *scratch;                 /* keys repacked, values repacked, and each thread's scores of GROUP queries */
    const int64_t *cu_seqlens;     /* (rows + 1): cumulative ends of the rows in tokens, from 0 on */
    const int64_t *kv_offsets;     /* (rows), in numbers, as the next two */
    int64_t head_stride, slot_stride, rows, heads, key_heads, size, threads;
    int64_t slots;                 /* tokens of the longest row, rounded up to a multiple of BLOCK */
    float scale;                   /* by which scores are multiplied before softmax */
    int causal;                    /* a token attends to itself and those before it, else to its whole row */
    int out_is_bf16;
} PrefillAttentionArgs;

#define OFFSET(field) offsetof(PrefillAttentionArgs, field)
EXPORT_LAYOUT(prefill_attention_args, sizeof(PrefillAttentionArgs), OFFSET(queries), OFFSET(keys), OFFSET(values),
              OFFSET(out), OFFSET(scratch), OFFSET(cu_seqlens), OFFSET(kv_offsets), OFFSET(head_stride),
              OFFSET(slot_stride), OFFSET(rows), OFFSET(heads), OFFSET(key_heads), OFFSET(size), OFFSET(threads),
              OFFSET(slots), OFFSET(scale), OFFSET(causal), OFFSET(out_is_bf16));

#define BLOCK 32 /* columns of a product that are computed at a time: slots, or numbers of a head */
#define GROUP 8  /* queries that are computed at a time */

/* Limits that Python reads: the head size must be a multiple of the first; the scratch depends on both. */
const int64_t prefill_block = BLOCK, prefill_group = GROUP;

int has_prefill_attention(void) { return has_gemv_bf16(); }

#ifdef TARGET_AVX512_BF16
#include <omp.h>

#define UNROLLED _Pragma("GCC unroll 8")

typedef uint32_t __attribute__((may_alias)) Pair; /* two bfloat16 numbers, one operand of the dot product */

/* The size of the repacked keys, and of the repacked values, in numbers. */
INLINE int64_t repacked_size(const PrefillAttentionArgs *args) {
    return args->rows * args->key_heads * args->slots * args->size;
}

INLINE uint16_t *keys_of(const PrefillAttentionArgs *args, int64_t row, int64_t key_head) {
    return (uint16_t *)args->scratch + (row * args->key_heads + key_head) * args->slots * args->size;
}

INLINE uint16_t *values_of(const PrefillAttentionArgs *args, int64_t row, int64_t key_head) {
    return keys_of(args, row, key_head) + repacked_size(args);
}

INLINE float *scores_of(const PrefillAttentionArgs *args, int64_t thread) {
    return (float *)(args->scratch + 4 * repacked_size(args)) + thread * GROUP * args->slots;
}

/* Keys as (slots / BLOCK, size / 2, BLOCK) pairs. The slots behind the last one are copies of it; the softmax ignores
   them. */
TARGET_AVX512_BF16 INLINE void repack_keys(const PrefillAttentionArgs *args, const uint16_t *from, int64_t slots,
                                           uint16_t *repacked) {
    Pair *to = (Pair *)repacked;
    for (int64_t slot = 0; slot < slots; slot += BLOCK) {
        int32_t places[BLOCK];
        for (int64_t i = 0; i < BLOCK; i++)
            places[i] = (int32_t)((slot + i < slots ? slot + i : slots - 1) * args->slot_stride / 2);
        for (int64_t pair = 0; pair < args->size / 2; pair++)
            for (int half = 0; half < 2; half++, to += 16)
                _mm512_storeu_si512(
                    to, _mm512_i32gather_epi32(_mm512_loadu_si512(places + 16 * half), (const int *)from + pair, 4));
    }
}

/* Values as (size / BLOCK, slots / 2, BLOCK) pairs. The slots behind the last one are zeros. */
TARGET_AVX512_BF16 INLINE void repack_values(const PrefillAttentionArgs *args, const uint16_t *from, int64_t slots,
                                             uint16_t *repacked) {
    Pair *to = (Pair *)repacked;
    for (int64_t number = 0; number < args->size; number += BLOCK)
        for (int64_t slot = 0; slot < args->slots; slot += 2)
            for (int half = 0; half < 2; half++, to += 16) {
                const uint16_t *first = from + slot * args->slot_stride + number + 16 * half;
                __m512i pairs = _mm512_setzero_si512();
                if (slot < slots)
                    pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)first));
                if (slot + 1 < slots)
                    pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                                       (const __m256i *)(first + args->slot_stride))), 16));
                _mm512_storeu_si512(to, pairs);
            }
}

/* The dot products of GROUP rows of `count` pairs with BLOCK columns, repacked as above. */
TARGET_AVX512_BF16 INLINE void multiply(const Pair *const *rows, const Pair *columns, int64_t count,
                                        __m512 sums[GROUP][2]) {
    UNROLLED for (int r = 0; r < GROUP; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i++, columns += BLOCK) {
        const __m512bh one = (__m512bh)_mm512_loadu_si512(columns), other = (__m512bh)_mm512_loadu_si512(columns + 16);
        UNROLLED for (int r = 0; r < GROUP; r++) {
            const __m512bh pair = (__m512bh)_mm512_set1_epi32((int)rows[r][i]);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], one, pair);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], other, pair);
        }
    }
}

/* Softmax of the first `visible` of `slots` scores, without the division: the weights are stored in bfloat16 over the
   scores, those behind `visible` as 0. Returns 1 over the sum of the weights. */
TARGET_AVX512_BF16 INLINE float softmax(float *scores, int64_t visible, int64_t slots, float scale) {
    uint16_t *weights = (uint16_t *)scores;
    float max_score = -INFINITY, some[16];
    __m512 sums = _mm512_setzero_ps();
#pragma omp simd reduction(max : max_score)
    for (int64_t i = 0; i < visible; i++)
        max_score = scores[i] > max_score ? scores[i] : max_score;
    for (int64_t slot = 0; slot < slots; slot += 16) {
#pragma omp simd
        for (int64_t i = 0; i < 16; i++)
            some[i] = slot + i < visible ? exp_nonpositive((scores[slot + i] - max_score) * scale) : 0.0f;
        const __m512 sixteen = _mm512_loadu_ps(some);
        sums = _mm512_add_ps(sums, sixteen);
        _mm256_storeu_si256((__m256i *)(weights + slot), (__m256i)_mm512_cvtneps_pbh(sixteen));
    }
    return 1.0f / _mm512_reduce_add_ps(sums);
}

/* GROUP queries of one head, from the row's token `first` on. Behind the row's last token it is that token again. */
TARGET_AVX512_BF16 INLINE void attend_group(const PrefillAttentionArgs *args, int64_t row, int64_t head, int64_t first,
                                            float *scores) {
    const int64_t begin = args->cu_seqlens[row], tokens = args->cu_seqlens[row + 1] - begin, size = args->size;
    const int64_t key_head = head / (args->heads / args->key_heads);
    const int64_t seen = args->causal && first + GROUP < tokens ? first + GROUP : tokens;
    const int64_t slots = (seen + BLOCK - 1) / BLOCK * BLOCK;
    const Pair *keys = (const Pair *)keys_of(args, row, key_head);
    const Pair *values = (const Pair *)values_of(args, row, key_head);
    const Pair *rows[GROUP];
    int64_t places[GROUP];
    float factors[GROUP];
    __m512 sums[GROUP][2];
    for (int r = 0; r < GROUP; r++) {
        places[r] = ((begin + (first + r < tokens ? first + r : tokens - 1)) * args->heads + head) * size;
        rows[r] = (const Pair *)(args->queries + places[r]);
    }
    for (int64_t slot = 0; slot < slots; slot += BLOCK) {
        multiply(rows, keys + slot * size / 2, size / 2, sums);
        for (int r = 0; r < GROUP; r++) {
            _mm512_storeu_ps(scores + r * args->slots + slot, sums[r][0]);
            _mm512_storeu_ps(scores + r * args->slots + slot + 16, sums[r][1]);
        }
    }
    for (int r = 0; r < GROUP; r++) {
        const int64_t visible = args->causal && first + r + 1 < tokens ? first + r + 1 : tokens;
        factors[r] = softmax(scores + r * args->slots, visible, slots, args->scale);
        rows[r] = (const Pair *)(scores + r * args->slots);
    }
    for (int64_t number = 0; number < size; number += BLOCK) {
        multiply(rows, values + number * args->slots / 2, slots / 2, sums);
        for (int r = 0; r < GROUP; r++)
            for (int half = 0; half < 2; half++) {
                const __m512 found = _mm512_mul_ps(sums[r][half], _mm512_set1_ps(factors[r]));
                const int64_t place = places[r] + number + 16 * half;
                if (args->out_is_bf16)
                    _mm256_storeu_si256((__m256i *)((uint16_t *)args->out + place), (__m256i)_mm512_cvtneps_pbh(found));
                else
                    _mm512_storeu_ps((float *)args->out + place, found);
            }
    }
}

/* Keys and values of one row and key head, repacked to the scratch. */
TARGET_AVX512_BF16 static void repack(const PrefillAttentionArgs *args, int64_t item) {
    const int64_t row = item / args->key_heads, key_head = item % args->key_heads;
    const int64_t from = args->kv_offsets[row] + key_head * args->head_stride;
    const int64_t slots = args->cu_seqlens[row + 1] - args->cu_seqlens[row];
    repack_keys(args, args->keys + from, slots, keys_of(args, row, key_head));
    repack_values(args, args->values + from, slots, values_of(args, row, key_head));
}

/* All queries of one row and head. */
TARGET_AVX512_BF16 static void attend(const PrefillAttentionArgs *args, int64_t item) {
    const int64_t row = item / args->heads, tokens = args->cu_seqlens[row + 1] - args->cu_seqlens[row];
    for (int64_t first = 0; first < tokens; first += GROUP)
        attend_group(args, row, item % args->heads, first, scores_of(args, omp_get_thread_num()));
}
#else
static void repack(const PrefillAttentionArgs *args, int64_t item) { (void)args, (void)item; }
static void attend(const PrefillAttentionArgs *args, int64_t item) { (void)args, (void)item; }
#endif

/* Only where has_prefill_attention(). No more threads than the scratch has room for. */
void prefill_attention(const PrefillAttentionArgs *args) {
#pragma omp parallel num_threads(args->threads)
    {
#pragma omp for
        for (int64_t item = 0; item < args->rows * args->key_heads; item++)
            repack(args, item);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < args->rows * args->heads; item++)
            attend(args, item);
    }
}
