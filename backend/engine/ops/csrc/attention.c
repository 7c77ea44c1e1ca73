/* Heads normalised and rotated, keys and values written to the cache; and, for one token more of every row, its queries
   answered.

   In torch the latter is twenty small operations and two matrix products a layer, and for a product of two queries
   with a few hundred keys a matrix library spends most of its time on preparing the keys. Here keys and values are
   read once, where they lie, and nothing is written but a row's own. All is computed in float32, whatever it is kept
   in.

   Called by engine/ops/native_ops.py. */

#include "bf16.h"

#define MOST_SHARING 16 /* queries that share a key head; both bounds are known to engine/ops/native_ops.py */
#define MOST_SIZE 256   /* numbers of a head, which are a multiple of LANES */
#define BLOCK 64        /* slots whose scores are held at once */

typedef struct {
    const void *projected;  /* (rows, positions, heads + 2 * key_heads, size): queries, keys, values */
    const float *norm;      /* (heads + key_heads, size) */
    const float *angles;    /* cosine, sine: (2, rows, size) of a token more, (2, positions, size) of prompts */
    void *keys, *values;    /* (rows, key_heads, slots, size) */
    const int64_t *lengths; /* (rows): slots in use, and so the slot to write. Of a token more */
    void *out;              /* (rows, heads, size) answers; or (rows, positions, heads, size) queries of prompts */
    int64_t rows, positions, heads, key_heads, slots, size;
    float epsilon;
    int flow_is_16, cache_is_16; /* of projected and answers; of keys, values and prompts' queries */
} Tokens;

int version; /* see bf16.h */

static int most_capable(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

__attribute__((constructor)) static void choose(void) { version = most_capable(); }

/* Where a head of a token is. */
INLINE int64_t place_of(const Tokens *call, int64_t token, int64_t head, int64_t size) {
    return (token * (call->heads + 2 * call->key_heads) + head) * size;
}

/* A head, root mean square 1 times its weights, turned to the position that `angle` is the angle of. */
INLINE void turned(const Tokens *call, int64_t token, int64_t angle, int64_t head, int64_t size, int is_16, float *to) {
    const int64_t angles = call->lengths ? call->rows : call->positions;
    const float *cosine = call->angles + angle * size, *sine = cosine + angles * size, *norm = call->norm + head * size;
    const int64_t from = place_of(call, token, head, size), half = size / 2;
    const float factor = to_root_mean_square_1(call->projected, from, size, call->epsilon, is_16);
    float numbers[MOST_SIZE];
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        numbers[i] = at(call->projected, from + i, is_16) * factor * norm[i];
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        to[i] = numbers[i] * cosine[i] - numbers[half + i] * sine[i];
        to[half + i] = numbers[half + i] * cosine[half + i] + numbers[i] * sine[half + i];
    }
}

/* A token's key and value, to the place `to` of the cache. */
INLINE void keep(const Tokens *call, int64_t token, int64_t angle, int64_t key_head, int64_t to, int64_t size,
                 int flow_is_16, int cache_is_16) {
    const int64_t key = call->heads + key_head, from = place_of(call, token, key + call->key_heads, size);
    float head[MOST_SIZE];
    turned(call, token, angle, key, size, flow_is_16, head);
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        put(call->keys, to + i, head[i], cache_is_16);
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        put(call->values, to + i, at(call->projected, from + i, flow_is_16), cache_is_16);
}

/* Of a prompt's token `item`, what it attends with. */
INLINE void read_one(const Tokens *call, int64_t item, int64_t size, int flow_is_16, int cache_is_16) {
    const int64_t row = item / call->positions, position = item % call->positions;
    float head[MOST_SIZE];
    for (int64_t i = 0; i < call->key_heads; i++)
        keep(call, item, position, i, ((row * call->key_heads + i) * call->slots + position) * size, size, flow_is_16,
             cache_is_16);
    for (int64_t i = 0; i < call->heads; i++) {
        const int64_t to = (item * call->heads + i) * size;
        turned(call, item, position, i, size, flow_is_16, head);
#pragma omp simd
        for (int64_t j = 0; j < size; j++)
            put(call->out, to + j, head[j], cache_is_16);
    }
}

/* What all published models have is known to the compiler, here and below; the rest is the same, slower. */
INLINE void read_any(const Tokens *call, int64_t item) {
    if (call->size == 128 && call->cache_is_16)
        read_one(call, item, 128, call->flow_is_16, 1);
    else
        read_one(call, item, call->size, call->flow_is_16, call->cache_is_16);
}

/* The queries of one row that share a key head, and their answers so far: the largest score, and the sums of the
   weights and of the weighted values relative to it (arXiv 1805.02867), which shrink when a larger score comes. */
typedef struct {
    Floats queries[MOST_SHARING][MOST_SIZE / LANES], sums[MOST_SHARING][MOST_SIZE / LANES];
    float largest[MOST_SHARING], total[MOST_SHARING];
} Answers;

INLINE void ask(const Tokens *call, int64_t row, int64_t first, int64_t size, int64_t sharing, int flow_is_16,
                Answers *all) {
    const float scale = 1.0f / sqrtf((float)size);
    float head[MOST_SIZE];
    for (int64_t each = 0; each < sharing; each++) {
        turned(call, row, row, first + each, size, flow_is_16, head);
        for (int64_t i = 0; i < size / LANES; i++) {
            all->queries[each][i] = *(const Floats *)(head + i * LANES) * scale;
            all->sums[each][i] = (Floats){0};
        }
        all->largest[each] = -INFINITY;
        all->total[each] = 0;
    }
}

/* Scores become weights; what was summed before becomes relative to the largest of them. */
INLINE void weigh_block(float *scores, int64_t count, int64_t size, int64_t each, Answers *all) {
    float largest = all->largest[each], sum = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++)
        largest = scores[i] > largest ? scores[i] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        scores[i] = exponential(scores[i] - largest);
        sum += scores[i];
    }
    const float less = exponential(all->largest[each] - largest);
    for (int64_t i = 0; i < size / LANES; i++)
        all->sums[each][i] *= less;
    all->total[each] = all->total[each] * less + sum;
    all->largest[each] = largest;
}

/* `count` slots of the cache, from the number `from` on. Values are fetched while keys are read, and the next block's
   keys while values are: 28 layers of eight rows with 160 slots take 4.8 ms, without that 5.9. */
INLINE void look_at(const Tokens *call, int64_t from, int64_t count, int64_t size, int64_t sharing, int is_16,
                    Answers *all) {
    float scores[MOST_SHARING][BLOCK];
    for (int64_t slot = 0; slot < count; slot++) {
        Floats products[MOST_SHARING] = {{0}};
        fetch(call->values, from + slot * size, size, is_16);
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats key = several(call->keys, from + slot * size + i * LANES, is_16);
            for (int64_t each = 0; each < sharing; each++)
                products[each] += all->queries[each][i] * key;
        }
        for (int64_t each = 0; each < sharing; each++)
            scores[each][slot] = added_up(products[each]);
    }
    for (int64_t each = 0; each < sharing; each++)
        weigh_block(scores[each], count, size, each, all);
    for (int64_t slot = 0; slot < count; slot++) {
        fetch(call->keys, from + (slot + BLOCK) * size, size, is_16); /* behind the last one that is harmless */
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats value = several(call->values, from + slot * size + i * LANES, is_16);
            for (int64_t each = 0; each < sharing; each++)
                all->sums[each][i] += scores[each][slot] * value;
        }
    }
}

INLINE void answer(const Tokens *call, int64_t row, int64_t key_head, int64_t size, int64_t sharing, int flow_is_16,
                   int cache_is_16) {
    const int64_t held = (row * call->key_heads + key_head) * call->slots * size, used = call->lengths[row];
    const int64_t first = key_head * sharing;
    Answers all;
    keep(call, row, row, key_head, held + used * size, size, flow_is_16, cache_is_16);
    ask(call, row, first, size, sharing, flow_is_16, &all);
    for (int64_t slot = 0; slot <= used; slot += BLOCK) {
        const int64_t count = used + 1 - slot < BLOCK ? used + 1 - slot : BLOCK;
        look_at(call, held + slot * size, count, size, sharing, cache_is_16, &all);
    }
    for (int64_t each = 0; each < sharing; each++)
        for (int64_t i = 0; i < size; i++) {
            const float number = all.sums[each][i / LANES][i % LANES] / all.total[each];
            put(call->out, (row * call->heads + first + each) * size + i, number, flow_is_16);
        }
}

INLINE void answer_any(const Tokens *call, int64_t item) {
    const int64_t row = item / call->key_heads, key_head = item % call->key_heads;
    const int64_t sharing = call->heads / call->key_heads;
    if (call->size == 128 && sharing == 2 && call->cache_is_16)
        answer(call, row, key_head, 128, 2, call->flow_is_16, 1);
    else if (call->size == 128 && sharing == 2)
        answer(call, row, key_head, 128, 2, call->flow_is_16, 0);
    else
        answer(call, row, key_head, call->size, sharing, call->flow_is_16, call->cache_is_16);
}

VERSIONS(read_any, Tokens)
VERSIONS(answer_any, Tokens)

/* Prompts: queries, keys and values; the cache's slots are their positions. */
void turn(const Tokens *call) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < call->rows * call->positions; token++)
        read_any_versions[version](call, token);
}

/* A token more of every row. */
void attend(const Tokens *call) {
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < call->rows * call->key_heads; item++)
        answer_any_versions[version](call, item);
}

const char *const source = SOURCE; /* the digest of these files, by which a library that is older is known */
