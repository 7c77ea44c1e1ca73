/* Numbers as kernels hold and compute them: in memory float32 or bfloat16 (`is_16`), in registers float32.

   Each kernel does one item, a row or a head of one, and is compiled twice, because the library may run elsewhere than
   where it was compiled: for any processor, and for AVX2 with FMA. With AVX-512 none was faster: they wait for memory.
   (gemv.c and prefill_attention.c have their own instructions, and none for other processors.)
*/

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 8 /* numbers that are computed at once */

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#else
#define AVX2
#endif

/* What multiplies sixteen bits has instructions that compilers before gcc 10 do not know. `multiplies_halves`
   (gemv.c) says whether this processor has them, too. */
#if defined(__x86_64__) && __GNUC__ >= 10
#include <immintrin.h>
#define HALVES __attribute__((target("avx512f,avx512bw,avx512bf16")))
#endif

/* `name(const Arguments *, int64_t item)` in two versions, of which `version` (attention.c) is the number. */
#define VERSIONS(name, Arguments)                                                             \
    static void name##_on_any(const Arguments *all, int64_t item) { name(all, item); }        \
    AVX2 static void name##_with_avx2(const Arguments *all, int64_t item) { name(all, item); } \
    static void (*const name##_versions[])(const Arguments *, int64_t) = {name##_on_any, name##_with_avx2};

extern int version __attribute__((visibility("protected"))); /* nobody else's of that name */

__attribute__((visibility("protected"))) void quantize(const float *from, int8_t *to, float *largest, int64_t count,
                                                        int64_t size); /* of rowwise.c */

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

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

/* Numbers that will be read soon are fetched meanwhile: `count` of them from `place` on. */
INLINE void fetch(const void *numbers, int64_t place, int64_t count, int is_16) {
    const char *first = (const char *)numbers + place * (is_16 ? 2 : 4);
    for (int64_t at = 0; at < count * (is_16 ? 2 : 4); at += 64)
        __builtin_prefetch(first + at);
}

INLINE float added_up(Floats numbers) {
    numbers += __builtin_shuffle(numbers, (Words){4, 5, 6, 7, 0, 1, 2, 3});
    numbers += __builtin_shuffle(numbers, (Words){2, 3, 0, 1, 6, 7, 4, 5});
    return numbers[0] + numbers[1];
}

/* 1 over the root of the mean square of `size` numbers. */
INLINE float to_root_mean_square_1(const void *numbers, int64_t from, int64_t size, float epsilon, int is_16) {
    Floats squares = {0};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const Floats some = several(numbers, from + i, is_16);
        squares += some * some;
    }
    float sum = added_up(squares);
    for (; i < size; i++)
        sum += at(numbers, from + i, is_16) * at(numbers, from + i, is_16);
    return 1.0f / sqrtf(sum / (float)size + epsilon);
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
