/* QK-norm, RoPE and the KV cache for the decoder; and attention for one decode step.

   rope: for prompts. RMS-normalise and rotate queries and keys, and store keys and values to the cache.
   decode_attention: for one new token of every row. The same, then grouped-query attention (GQA) over the row's slots.

   In torch a decode step's attention is twenty small operations and two batched matrix products a layer, and for a product
   of two queries with a few hundred keys a matrix library spends most of its time on packing the keys. Here keys and
   values are read once, where they are, and nothing but the row's own slot is written. All arithmetic is float32,
   whatever the dtype in memory.

   Called by engine/ops/native_ops.py. */

#include "bf16.h"

#define MAX_SHARING 16 /* query heads that share a key head */
#define MAX_HEAD_SIZE 256
#define BLOCK 64 /* slots whose scores are kept at a time */

typedef struct {
    const void *projected;  /* (rows, positions, heads + 2 * key_heads, size): queries, keys, values */
    const float *norm;      /* (heads + key_heads, size): weights of the QK-norm */
    const float *cos_sin;   /* decode step: (2, rows, size). Prompts: (2, positions, size) */
    void *keys, *values;    /* the layer's part of the KV cache, each (rows, key_heads, slots, size) */
    const int64_t *lengths; /* decode step: (rows), slots in use, so also the slot to write. Prompts: NULL */
    void *out;              /* decode step: attention output (rows, heads, size). Prompts: rotated queries (rows,
                               positions, heads, size) in the cache's dtype */
    int64_t rows, positions, heads, key_heads, slots, size; /* `size` of a head is a multiple of LANES */
    float epsilon;
    int activations_are_bf16; /* `projected`, and `out` of a decode step */
    int cache_is_bf16;        /* keys, values, and `out` of prompts */
} AttentionArgs;

#define OFFSET(field) offsetof(AttentionArgs, field)
EXPORT_LAYOUT(attention_args, sizeof(AttentionArgs), OFFSET(projected), OFFSET(norm), OFFSET(cos_sin), OFFSET(keys),
              OFFSET(values), OFFSET(lengths), OFFSET(out), OFFSET(rows), OFFSET(positions), OFFSET(heads),
              OFFSET(key_heads), OFFSET(slots), OFFSET(size), OFFSET(epsilon), OFFSET(activations_are_bf16),
              OFFSET(cache_is_bf16));

/* Limits that Python reads (engine/ops/native.py) */
const int64_t max_sharing_heads = MAX_SHARING, max_head_size = MAX_HEAD_SIZE, lanes = LANES;

int instruction_set; /* see bf16.h; tests set it */

static int best_instruction_set(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

__attribute__((constructor)) static void select_instruction_set(void) { instruction_set = best_instruction_set(); }

/* The index in `projected` of a token's head. */
INLINE int64_t head_index(const AttentionArgs *args, int64_t token, int64_t head, int64_t size) {
    return (token * (args->heads + 2 * args->key_heads) + head) * size;
}

/* RMS-normalise one head, then apply RoPE with the cosines and sines at `position` of `cos_sin`. */
INLINE void norm_and_rope(const AttentionArgs *args, int64_t token, int64_t position, int64_t head, int64_t size,
                          int is_bf16, float *to) {
    const int64_t positions = args->lengths ? args->rows : args->positions;
    const float *cosine = args->cos_sin + position * size, *sine = cosine + positions * size;
    const float *norm = args->norm + head * size;
    const int64_t from = head_index(args, token, head, size), half = size / 2;
    const float factor = inverse_rms(args->projected, from, size, args->epsilon, is_bf16);
    float numbers[MAX_HEAD_SIZE];
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        numbers[i] = load(args->projected, from + i, is_bf16) * factor * norm[i];
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        to[i] = numbers[i] * cosine[i] - numbers[half + i] * sine[i];
        to[half + i] = numbers[half + i] * cosine[half + i] + numbers[i] * sine[half + i];
    }
}

/* Store a token's key, normalised and rotated, and its value at the index `to` of the cache. */
INLINE void store_kv(const AttentionArgs *args, int64_t token, int64_t position, int64_t key_head, int64_t to,
                     int64_t size, int activations_are_bf16, int cache_is_bf16) {
    const int64_t key = args->heads + key_head, value = head_index(args, token, key + args->key_heads, size);
    float head[MAX_HEAD_SIZE];
    norm_and_rope(args, token, position, key, size, activations_are_bf16, head);
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        store(args->keys, to + i, head[i], cache_is_bf16);
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        store(args->values, to + i, load(args->projected, value + i, activations_are_bf16), cache_is_bf16);
}

/* One token of a prompt: its keys and values to the cache, its queries to `out`. */
INLINE void rope_token(const AttentionArgs *args, int64_t token, int64_t size, int activations_are_bf16,
                       int cache_is_bf16) {
    const int64_t row = token / args->positions, position = token % args->positions;
    float head[MAX_HEAD_SIZE];
    for (int64_t i = 0; i < args->key_heads; i++)
        store_kv(args, token, position, i, ((row * args->key_heads + i) * args->slots + position) * size, size,
                 activations_are_bf16, cache_is_bf16);
    for (int64_t i = 0; i < args->heads; i++) {
        const int64_t to = (token * args->heads + i) * size;
        norm_and_rope(args, token, position, i, size, activations_are_bf16, head);
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            store(args->out, to + j, head[j], cache_is_bf16);
    }
}

/* Here and in decode_any, the sizes of all published models are compile-time constants. Other sizes give the same
   numbers more slowly. */
INLINE void rope_any(const AttentionArgs *args, int64_t token) {
    if (args->size == 128 && args->cache_is_bf16)
        rope_token(args, token, 128, args->activations_are_bf16, 1);
    else
        rope_token(args, token, args->size, args->activations_are_bf16, args->cache_is_bf16);
}

/* The state of online softmax (arXiv 1805.02867) for the query heads of one row that share a key head: for each head the
   largest score so far, the sum of the weights, and the weighted sum of the values, both relative to that score. */
typedef struct {
    Floats queries[MAX_SHARING][MAX_HEAD_SIZE / LANES], weighted[MAX_SHARING][MAX_HEAD_SIZE / LANES];
    float max_score[MAX_SHARING], weight_sum[MAX_SHARING];
} SoftmaxState;

/* The queries of heads `first` to `first + sharing`, normalised, rotated and scaled by 1 / sqrt(size). */
INLINE void load_queries(const AttentionArgs *args, int64_t row, int64_t first, int64_t size, int64_t sharing,
                         int activations_are_bf16, SoftmaxState *state) {
    const float scale = 1.0f / sqrtf((float)size);
    float head[MAX_HEAD_SIZE];
    for (int64_t q = 0; q < sharing; q++) {
        norm_and_rope(args, row, row, first + q, size, activations_are_bf16, head);
        for (int64_t i = 0; i < size / LANES; i++) {
            state->queries[q][i] = *(const Floats *)(head + i * LANES) * scale;
            state->weighted[q][i] = (Floats){0};
        }
        state->max_score[q] = -INFINITY;
        state->weight_sum[q] = 0;
    }
}

/* Turn a block's scores into softmax weights, in place, and rescale the state to the new largest score. */
INLINE void online_softmax(float *scores, int64_t count, int64_t size, int64_t q, SoftmaxState *state) {
    float max_score = state->max_score[q], sum = 0;
#pragma omp simd reduction(max : max_score)
    for (int64_t i = 0; i < count; i++)
        max_score = scores[i] > max_score ? scores[i] : max_score;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        scores[i] = exp_nonpositive(scores[i] - max_score);
        sum += scores[i];
    }
    const float correction = exp_nonpositive(state->max_score[q] - max_score);
    for (int64_t i = 0; i < size / LANES; i++)
        state->weighted[q][i] *= correction;
    state->weight_sum[q] = state->weight_sum[q] * correction + sum;
    state->max_score[q] = max_score;
}

/* Attend to `count` slots, from the index `from` of the cache on. The values are prefetched while the keys are read, and
   the next block's keys while the values are: 28 layers of eight rows with 160 slots take 4.8 ms, and 5.9 ms without.
   A prefetch behind the last slot is harmless: prefetch instructions do not fault. */
INLINE void attend_block(const AttentionArgs *args, int64_t from, int64_t count, int64_t size, int64_t sharing,
                         int is_bf16, SoftmaxState *state) {
    float scores[MAX_SHARING][BLOCK];
    for (int64_t slot = 0; slot < count; slot++) {
        Floats products[MAX_SHARING] = {{0}};
        prefetch(args->values, from + slot * size, size, is_bf16);
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats key = load_lanes(args->keys, from + slot * size + i * LANES, is_bf16);
            for (int64_t q = 0; q < sharing; q++)
                products[q] += state->queries[q][i] * key;
        }
        for (int64_t q = 0; q < sharing; q++)
            scores[q][slot] = horizontal_sum(products[q]);
    }
    for (int64_t q = 0; q < sharing; q++)
        online_softmax(scores[q], count, size, q, state);
    for (int64_t slot = 0; slot < count; slot++) {
        prefetch(args->keys, from + (slot + BLOCK) * size, size, is_bf16);
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats value = load_lanes(args->values, from + slot * size + i * LANES, is_bf16);
            for (int64_t q = 0; q < sharing; q++)
                state->weighted[q][i] += scores[q][slot] * value;
        }
    }
}

/* One row and one key head: store the new token's key and value, then attend with all query heads that share them. */
INLINE void decode_head(const AttentionArgs *args, int64_t row, int64_t key_head, int64_t size, int64_t sharing,
                        int activations_are_bf16, int cache_is_bf16) {
    const int64_t kv = (row * args->key_heads + key_head) * args->slots * size, used = args->lengths[row];
    const int64_t first = key_head * sharing;
    SoftmaxState state;
    store_kv(args, row, row, key_head, kv + used * size, size, activations_are_bf16, cache_is_bf16);
    load_queries(args, row, first, size, sharing, activations_are_bf16, &state);
    for (int64_t slot = 0; slot <= used; slot += BLOCK) {
        const int64_t count = used + 1 - slot < BLOCK ? used + 1 - slot : BLOCK;
        attend_block(args, kv + slot * size, count, size, sharing, cache_is_bf16, &state);
    }
    for (int64_t q = 0; q < sharing; q++)
        for (int64_t i = 0; i < size; i++) {
            const float number = state.weighted[q][i / LANES][i % LANES] / state.weight_sum[q];
            store(args->out, (row * args->heads + first + q) * size + i, number, activations_are_bf16);
        }
}

INLINE void decode_any(const AttentionArgs *args, int64_t item) {
    const int64_t row = item / args->key_heads, key_head = item % args->key_heads;
    const int64_t sharing = args->heads / args->key_heads;
    if (args->size == 128 && sharing == 2 && args->cache_is_bf16)
        decode_head(args, row, key_head, 128, 2, args->activations_are_bf16, 1);
    else if (args->size == 128 && sharing == 2)
        decode_head(args, row, key_head, 128, 2, args->activations_are_bf16, 0);
    else
        decode_head(args, row, key_head, args->size, sharing, args->activations_are_bf16, args->cache_is_bf16);
}

TWO_VARIANTS(rope_any, AttentionArgs)
TWO_VARIANTS(decode_any, AttentionArgs)

/* Prompts: QK-norm and RoPE. Keys and values go to the cache, where a slot is a position; queries go to `out`. */
void rope(const AttentionArgs *args) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < args->rows * args->positions; token++)
        rope_any_variants[instruction_set](args, token);
}

/* Decode step: one new token of every row attends to its row's slots, itself included. */
void decode_attention(const AttentionArgs *args) {
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < args->rows * args->key_heads; item++)
        decode_any_variants[instruction_set](args, item);
}

const char *const source_digest = SOURCE_DIGEST; /* of all sources; native.py does not use a library of other sources */
