/* Many queries answered at once: a prompt's, and those of the encoder's windows, in bfloat16.

   By a matrix library it is three products, between which scores go to memory in sixteen bits and back: a third product
   gives what rounding took off. Here a few queries' scores stay in float32 and in the cache until they are weights, and
   blocks of which a query sees nothing are not computed. Keys and values are laid out once for all queries that share
   them.

   Called by engine/ops/prefill_attention.py. */

#include "bf16.h"

typedef struct {
    const uint16_t *queries;       /* (tokens, heads, size), those of each row after those of the row before */
    const uint16_t *keys, *values; /* a row's stand from held[row] on, `head_apart` and `slot_apart` */
    void *out;                     /* like queries */
    char *scratch;                 /* keys laid out, values laid out, and the scores of each thread's GROUP */
    const int64_t *ends;           /* (rows + 1): where the rows' tokens end, and the first one's begin */
    const int64_t *held;           /* (rows), in numbers, as are the next two */
    int64_t head_apart, slot_apart, rows, heads, key_heads, size, threads;
    int64_t slots;                 /* of the longest row, and as many more as fill its last BLOCK */
    float scale;
    int causal, out_is_16; /* whether a token sees those before it and itself, or all of its row */
} Prompts;

#define BLOCK 32 /* slots, or numbers of a head, that are computed at once; as in engine/ops/prefill_attention.py */
#define GROUP 8  /* queries that are answered at once; the same */

#ifdef HALVES
#include <omp.h>

#define UNROLLED _Pragma("GCC unroll 8")

typedef uint32_t __attribute__((may_alias)) Pair; /* two numbers, whose products with two others are added up */

/* Numbers of a row's keys, or values, laid out. */
INLINE int64_t laid_out(const Prompts *all) { return all->rows * all->key_heads * all->slots * all->size; }

INLINE uint16_t *keys_of(const Prompts *all, int64_t row, int64_t key_head) {
    return (uint16_t *)all->scratch + (row * all->key_heads + key_head) * all->slots * all->size;
}

INLINE uint16_t *values_of(const Prompts *all, int64_t row, int64_t key_head) {
    return keys_of(all, row, key_head) + laid_out(all);
}

INLINE float *scores_of(const Prompts *all, int64_t thread) {
    return (float *)(all->scratch + 4 * laid_out(all)) + thread * GROUP * all->slots;
}

/* Keys: a block of slots after the other, there the pairs of numbers one after the other, of each all slots. */
HALVES INLINE void lay_out_keys(const Prompts *all, const uint16_t *from, int64_t slots, uint16_t *laid) {
    Pair *to = (Pair *)laid;
    for (int64_t slot = 0; slot < slots; slot += BLOCK) {
        int32_t places[BLOCK]; /* behind the last slot it is read again: nobody sees it there */
        for (int64_t i = 0; i < BLOCK; i++)
            places[i] = (int32_t)((slot + i < slots ? slot + i : slots - 1) * all->slot_apart / 2);
        for (int64_t pair = 0; pair < all->size / 2; pair++)
            for (int half = 0; half < 2; half++, to += 16)
                _mm512_storeu_si512(
                    to, _mm512_i32gather_epi32(_mm512_loadu_si512(places + 16 * half), (const int *)from + pair, 4));
    }
}

/* Values: a block of numbers after the other, there the pairs of slots one after the other, of each all numbers. */
HALVES INLINE void lay_out_values(const Prompts *all, const uint16_t *from, int64_t slots, uint16_t *laid) {
    Pair *to = (Pair *)laid;
    for (int64_t number = 0; number < all->size; number += BLOCK)
        for (int64_t slot = 0; slot < all->slots; slot += 2)
            for (int half = 0; half < 2; half++, to += 16) {
                const uint16_t *first = from + slot * all->slot_apart + number + 16 * half;
                __m512i pairs = _mm512_setzero_si512(); /* behind the last slot: they have no weight */
                if (slot < slots)
                    pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)first));
                if (slot + 1 < slots)
                    pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                                       (const __m256i *)(first + all->slot_apart))), 16));
                _mm512_storeu_si512(to, pairs);
            }
}

/* Of GROUP rows of `count` pairs, whose sums of products with each of BLOCK columns, laid out as above. */
HALVES INLINE void multiply(const Pair *const *rows, const Pair *columns, int64_t count, __m512 sums[GROUP][2]) {
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

/* Scores become weights, in bfloat16 and in the same place, of which `known` are not 0. Gives 1 over their sum. */
HALVES INLINE float weigh(float *scores, int64_t known, int64_t slots, float scale) {
    uint16_t *weights = (uint16_t *)scores;
    float largest = -INFINITY, some[16];
    __m512 sums = _mm512_setzero_ps();
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < known; i++)
        largest = scores[i] > largest ? scores[i] : largest;
    for (int64_t slot = 0; slot < slots; slot += 16) {
#pragma omp simd
        for (int64_t i = 0; i < 16; i++)
            some[i] = slot + i < known ? exponential((scores[slot + i] - largest) * scale) : 0.0f;
        const __m512 sixteen = _mm512_loadu_ps(some);
        sums = _mm512_add_ps(sums, sixteen);
        _mm256_storeu_si256((__m256i *)(weights + slot), (__m256i)_mm512_cvtneps_pbh(sixteen));
    }
    return 1.0f / _mm512_reduce_add_ps(sums);
}

/* The queries of GROUP tokens from `first` on; of the last one again where there are fewer. */
HALVES INLINE void answer(const Prompts *all, int64_t row, int64_t head, int64_t first, float *scores) {
    const int64_t begin = all->ends[row], tokens = all->ends[row + 1] - begin, size = all->size;
    const int64_t key_head = head / (all->heads / all->key_heads);
    const int64_t seen = all->causal && first + GROUP < tokens ? first + GROUP : tokens;
    const int64_t slots = (seen + BLOCK - 1) / BLOCK * BLOCK;
    const Pair *keys = (const Pair *)keys_of(all, row, key_head), *values = (const Pair *)values_of(all, row, key_head);
    const Pair *rows[GROUP];
    int64_t places[GROUP];
    float factors[GROUP];
    __m512 sums[GROUP][2];
    for (int r = 0; r < GROUP; r++) {
        places[r] = ((begin + (first + r < tokens ? first + r : tokens - 1)) * all->heads + head) * size;
        rows[r] = (const Pair *)(all->queries + places[r]);
    }
    for (int64_t slot = 0; slot < slots; slot += BLOCK) {
        multiply(rows, keys + slot * size / 2, size / 2, sums);
        for (int r = 0; r < GROUP; r++) {
            _mm512_storeu_ps(scores + r * all->slots + slot, sums[r][0]);
            _mm512_storeu_ps(scores + r * all->slots + slot + 16, sums[r][1]);
        }
    }
    for (int r = 0; r < GROUP; r++) {
        const int64_t known = all->causal && first + r + 1 < tokens ? first + r + 1 : tokens;
        factors[r] = weigh(scores + r * all->slots, known, slots, all->scale);
        rows[r] = (const Pair *)(scores + r * all->slots);
    }
    for (int64_t number = 0; number < size; number += BLOCK) {
        multiply(rows, values + number * all->slots / 2, slots / 2, sums);
        for (int r = 0; r < GROUP; r++)
            for (int half = 0; half < 2; half++) {
                const __m512 found = _mm512_mul_ps(sums[r][half], _mm512_set1_ps(factors[r]));
                const int64_t place = places[r] + number + 16 * half;
                if (all->out_is_16)
                    _mm256_storeu_si256((__m256i *)((uint16_t *)all->out + place), (__m256i)_mm512_cvtneps_pbh(found));
                else
                    _mm512_storeu_ps((float *)all->out + place, found);
            }
    }
}

HALVES static void lay_out(const Prompts *all, int64_t item) {
    const int64_t row = item / all->key_heads, key_head = item % all->key_heads;
    const int64_t from = all->held[row] + key_head * all->head_apart, slots = all->ends[row + 1] - all->ends[row];
    lay_out_keys(all, all->keys + from, slots, keys_of(all, row, key_head));
    lay_out_values(all, all->values + from, slots, values_of(all, row, key_head));
}

HALVES static void answer_all(const Prompts *all, int64_t item) {
    const int64_t row = item / all->heads, tokens = all->ends[row + 1] - all->ends[row];
    for (int64_t first = 0; first < tokens; first += GROUP)
        answer(all, row, item % all->heads, first, scores_of(all, omp_get_thread_num()));
}
#else
static void lay_out(const Prompts *all, int64_t item) { (void)all, (void)item; }
static void answer_all(const Prompts *all, int64_t item) { (void)all, (void)item; }
#endif

/* Where `multiplies_halves` (gemv.c). */
void attend_to_prompts(const Prompts *all) {
#pragma omp parallel num_threads(all->threads) /* for so many there is room */
    {
#pragma omp for
        for (int64_t item = 0; item < all->rows * all->key_heads; item++)
            lay_out(all, item);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < all->rows * all->heads; item++)
            answer_all(all, item);
    }
}
