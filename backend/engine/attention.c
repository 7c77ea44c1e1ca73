/* One token more of every row: its heads normalised and rotated, its key and value written, its queries answered.

   In torch this is twenty small operations and two matrix products a layer, and for a product of two queries with a
   few hundred keys a matrix library spends most of its time on preparing the keys. Here keys and values are read once,
   where they lie, and nothing is written but a row's own. All is computed in float32, whatever it is kept in.

   Called by engine/attention.py, which says what the arguments are; install.sh compiles it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MOST_SHARING 16 /* queries that share a key head; both bounds are known to engine/attention.py */
#define MOST_SIZE 256   /* numbers of a head */
#define BLOCK 64        /* slots whose scores are held at once */
#define LANES 8         /* numbers that are computed at once, of which heads have a multiple */

#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef struct {
    const void *projected; /* (rows, heads + 2 * key_heads, size): queries, keys, values */
    const float *norm;     /* (heads + key_heads, size) */
    const float *angles;   /* (2, rows, size): cosine, sine */
    void *keys, *values;   /* (rows, key_heads, slots, size) */
    const int64_t *lengths; /* (rows): slots in use, and so the slot to write */
    void *out;             /* (rows, heads, size) */
    int64_t rows, heads, key_heads, slots, size;
    float epsilon;
    int flow_is_16, cache_is_16; /* bfloat16, or float32: of projected and out, of keys and values */
    int version;                 /* of `most_capable()` or less */
} Step;

INLINE float widened(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

INLINE uint16_t rounded(float number) { /* to the nearest, ties to even; what is no number stays none */
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint32_t up = bits + 0x7fff + (bits >> 16 & 1);
    return number == number ? (uint16_t)(up >> 16) : 0x7fc0;
}

INLINE float at(const void *numbers, int64_t place, int is_16) {
    return is_16 ? widened(((const uint16_t *)numbers)[place]) : ((const float *)numbers)[place];
}

INLINE void put(void *numbers, int64_t place, float number, int is_16) {
    if (is_16)
        ((uint16_t *)numbers)[place] = rounded(number);
    else
        ((float *)numbers)[place] = number;
}

INLINE Floats several(const void *numbers, int64_t place, int is_16) {
    if (!is_16)
        return *(const Floats *)((const float *)numbers + place);
    return (Floats)(__builtin_convertvector(*(const Halves *)((const uint16_t *)numbers + place), Words) << 16);
}

INLINE float added_up(Floats numbers) {
    numbers += __builtin_shuffle(numbers, (Words){4, 5, 6, 7, 0, 1, 2, 3});
    numbers += __builtin_shuffle(numbers, (Words){2, 3, 0, 1, 6, 7, 4, 5});
    return numbers[0] + numbers[1];
}

/* e to the x <= 0: 2 to a whole number, times a polynomial of what is left (Cephes' expf; an error of 2e-7). Unlike the
   library's it becomes vector instructions without leave to reorder everything else. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x; /* what is no number stays none */
    const float whole = x * 1.44269504f + 12582912.0f - 12582912.0f; /* 1.5 * 2^23: adding it rounds */
    const float left = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float power = 1.9875691500e-4f;
    power = power * left + 1.3981999507e-3f;
    power = power * left + 8.3334519073e-3f;
    power = power * left + 4.1665795894e-2f;
    power = power * left + 1.6666665459e-1f;
    power = power * left + 5.0000001201e-1f;
    power = power * left * left + left + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return power * scale;
}

/* A head, root mean square 1 times its weights, turned to its position. */
INLINE void turned(const Step *step, int64_t row, int64_t head, int64_t size, int is_16, float *to) {
    const float *cosine = step->angles + row * size, *sine = cosine + step->rows * size;
    const float *norm = step->norm + head * size;
    const int64_t from = (row * (step->heads + 2 * step->key_heads) + head) * size, half = size / 2;
    float numbers[MOST_SIZE], squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; i++) {
        numbers[i] = at(step->projected, from + i, is_16);
        squares += numbers[i] * numbers[i];
    }
    const float factor = 1.0f / sqrtf(squares / (float)size + step->epsilon);
#pragma omp simd
    for (int64_t i = 0; i < size; i++)
        numbers[i] *= factor * norm[i];
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        to[i] = numbers[i] * cosine[i] - numbers[half + i] * sine[i];
        to[half + i] = numbers[half + i] * cosine[half + i] + numbers[i] * sine[half + i];
    }
}

/* The queries of one row that share a key head, and their answers so far: the largest score, and the sums of the
   weights and of the weighted values relative to it (arXiv 1805.02867), which shrink when a larger score comes. */
typedef struct {
    Floats queries[MOST_SHARING][MOST_SIZE / LANES], sums[MOST_SHARING][MOST_SIZE / LANES];
    float largest[MOST_SHARING], total[MOST_SHARING];
} Answers;

INLINE void keep(const Step *step, int64_t row, int64_t key_head, int64_t to, int64_t size, int flow_is_16,
                 int cache_is_16) {
    const int64_t key = step->heads + key_head, value = key + step->key_heads;
    const int64_t from = (row * (step->heads + 2 * step->key_heads) + value) * size;
    float head[MOST_SIZE];
    turned(step, row, key, size, flow_is_16, head);
    for (int64_t i = 0; i < size; i++) {
        put(step->keys, to + i, head[i], cache_is_16);
        put(step->values, to + i, at(step->projected, from + i, flow_is_16), cache_is_16);
    }
}

INLINE void ask(const Step *step, int64_t row, int64_t first, int64_t size, int64_t sharing, int flow_is_16,
                Answers *all) {
    const float scale = 1.0f / sqrtf((float)size);
    float head[MOST_SIZE];
    for (int64_t each = 0; each < sharing; each++) {
        turned(step, row, first + each, size, flow_is_16, head);
        for (int64_t i = 0; i < size / LANES; i++) {
            all->queries[each][i] = *(const Floats *)(head + i * LANES) * scale;
            all->sums[each][i] = (Floats){0};
        }
        all->largest[each] = -INFINITY;
        all->total[each] = 0;
    }
}

/* Scores become weights; what was summed before becomes relative to the largest of them. */
INLINE void weigh(float *scores, int64_t count, int64_t size, int64_t each, Answers *all) {
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

/* `count` slots of the cache, from the number `from` on. */
INLINE void look_at(const Step *step, int64_t from, int64_t count, int64_t size, int64_t sharing, int is_16,
                    Answers *all) {
    float scores[MOST_SHARING][BLOCK];
    for (int64_t slot = 0; slot < count; slot++) {
        Floats products[MOST_SHARING] = {{0}};
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats key = several(step->keys, from + slot * size + i * LANES, is_16);
            for (int64_t each = 0; each < sharing; each++)
                products[each] += all->queries[each][i] * key;
        }
        for (int64_t each = 0; each < sharing; each++)
            scores[each][slot] = added_up(products[each]);
    }
    for (int64_t each = 0; each < sharing; each++)
        weigh(scores[each], count, size, each, all);
    for (int64_t slot = 0; slot < count; slot++)
        for (int64_t i = 0; i < size / LANES; i++) {
            const Floats value = several(step->values, from + slot * size + i * LANES, is_16);
            for (int64_t each = 0; each < sharing; each++)
                all->sums[each][i] += scores[each][slot] * value;
        }
}

INLINE void answer(const Step *step, int64_t row, int64_t key_head, int64_t size, int64_t sharing, int flow_is_16,
                   int cache_is_16) {
    const int64_t held = (row * step->key_heads + key_head) * step->slots * size, used = step->lengths[row];
    const int64_t first = key_head * sharing;
    Answers all;
    keep(step, row, key_head, held + used * size, size, flow_is_16, cache_is_16);
    ask(step, row, first, size, sharing, flow_is_16, &all);
    for (int64_t slot = 0; slot <= used; slot += BLOCK) {
        const int64_t count = used + 1 - slot < BLOCK ? used + 1 - slot : BLOCK;
        look_at(step, held + slot * size, count, size, sharing, cache_is_16, &all);
    }
    for (int64_t each = 0; each < sharing; each++)
        for (int64_t i = 0; i < size; i++) {
            const float number = all.sums[each][i / LANES][i % LANES] / all.total[each];
            put(step->out, (row * step->heads + first + each) * size + i, number, flow_is_16);
        }
}

/* What all published models have is known to the compiler; the rest is the same, slower. */
INLINE void answer_any(const Step *step, int64_t item) {
    const int64_t row = item / step->key_heads, key_head = item % step->key_heads;
    const int64_t sharing = step->heads / step->key_heads;
    if (step->size == 128 && sharing == 2 && step->cache_is_16)
        answer(step, row, key_head, 128, 2, step->flow_is_16, 1);
    else if (step->size == 128 && sharing == 2)
        answer(step, row, key_head, 128, 2, step->flow_is_16, 0);
    else
        answer(step, row, key_head, step->size, sharing, step->flow_is_16, step->cache_is_16);
}

/* Two versions, because the library may run elsewhere than where it was compiled. One with AVX-512 is no faster: this
   one waits for memory. */
static void on_any(const Step *step, int64_t item) { answer_any(step, item); }

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void with_avx2(const Step *step, int64_t item) { answer_any(step, item); }
int most_capable(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
#define with_avx2 on_any
int most_capable(void) { return 0; }
#endif

void attend(const Step *step) {
    static void (*const versions[])(const Step *, int64_t) = {on_any, with_avx2};
    const int64_t items = step->rows * step->key_heads;
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < items; item++)
        versions[step->version](step, item);
}

const char *const source = SOURCE; /* the digest of this file, by which a library that is older is known */
