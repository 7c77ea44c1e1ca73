/* What all kernels share: load and store of float32 and bfloat16, vector helpers, and the choice of instruction set.

   Memory holds float32 or bfloat16 (`is_bf16`); registers hold float32, and all arithmetic is float32.

   The library may run on another processor than the one that compiled it, so each kernel of attention.c and rowwise.c is
   compiled twice: for the baseline instruction set and for AVX2 with FMA (TWO_VARIANTS). A variant for AVX-512 was no
   faster, because these kernels wait for memory. gemv.c and prefill_attention.c need AVX-512 and have no other variant;
   torch computes the same on other processors. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 8 /* floats in a vector register of AVX2 */

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#else
#define TARGET_AVX2
#endif

/* Compilers before gcc 10 do not know the bfloat16 dot product. `has_gemv_bf16` (gemv.c) tells whether this processor
   has it as well. */
#if defined(__x86_64__) && __GNUC__ >= 10
#include <immintrin.h>
#define TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))
#endif

/* Two variants of the kernel `name(const Arguments *, int64_t item)`; the variable `instruction_set` selects one. */
#define TWO_VARIANTS(name, Arguments)                                                                 \
    static void name##_baseline(const Arguments *args, int64_t item) { name(args, item); }            \
    TARGET_AVX2 static void name##_avx2(const Arguments *args, int64_t item) { name(args, item); }    \
    static void (*const name##_variants[])(const Arguments *, int64_t) = {name##_baseline, name##_avx2};

/* The layout of an argument struct, for engine/ops/native.py: its size, the offset of each field, and -1 as the end.
   Loading refuses a library whose layout differs from the ctypes mirror in engine/ops/native_args.py. */
#define EXPORT_LAYOUT(name, ...) const int64_t name##_layout[] = {__VA_ARGS__, -1}

#define PROTECTED __attribute__((visibility("protected"))) /* never resolved to another library's symbol */

extern int instruction_set PROTECTED; /* attention.c: 0 is the baseline, 1 is AVX2 with FMA */

PROTECTED int has_gemv_bf16(void); /* gemv.c */
PROTECTED void quantize(const float *from, int8_t *to, float *absmax, int64_t count, int64_t size); /* rowwise.c */

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Bf16s __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE float bf16_to_float(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

/* Round to nearest, ties to even. NaN stays NaN. */
INLINE uint16_t float_to_bf16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint32_t up = bits + 0x7fff + (bits >> 16 & 1);
    return number == number ? (uint16_t)(up >> 16) : 0x7fc0;
}

INLINE float load(const void *numbers, int64_t index, int is_bf16) {
    return is_bf16 ? bf16_to_float(((const uint16_t *)numbers)[index]) : ((const float *)numbers)[index];
}

INLINE void store(void *numbers, int64_t index, float number, int is_bf16) {
    if (is_bf16)
        ((uint16_t *)numbers)[index] = float_to_bf16(number);
    else
        ((float *)numbers)[index] = number;
}

/* LANES numbers from `index` on. */
INLINE Floats load_lanes(const void *numbers, int64_t index, int is_bf16) {
    if (!is_bf16)
        return *(const Floats *)((const float *)numbers + index);
    return (Floats)(__builtin_convertvector(*(const Bf16s *)((const uint16_t *)numbers + index), Words) << 16);
}

/* Prefetch `count` numbers from `index` on, cache line by cache line. */
INLINE void prefetch(const void *numbers, int64_t index, int64_t count, int is_bf16) {
    const char *first = (const char *)numbers + index * (is_bf16 ? 2 : 4);
    for (int64_t at = 0; at < count * (is_bf16 ? 2 : 4); at += 64)
        __builtin_prefetch(first + at);
}

INLINE float horizontal_sum(Floats numbers) {
    numbers += __builtin_shuffle(numbers, (Words){4, 5, 6, 7, 0, 1, 2, 3});
    numbers += __builtin_shuffle(numbers, (Words){2, 3, 0, 1, 6, 7, 4, 5});
    return numbers[0] + numbers[1];
}

/* 1 / sqrt(mean of squares + epsilon) of `size` numbers from `from` on: the factor of RMSNorm. */
INLINE float inverse_rms(const void *numbers, int64_t from, int64_t size, float epsilon, int is_bf16) {
    Floats squares = {0};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const Floats some = load_lanes(numbers, from + i, is_bf16);
        squares += some * some;
    }
    float sum = horizontal_sum(squares);
    for (; i < size; i++)
        sum += load(numbers, from + i, is_bf16) * load(numbers, from + i, is_bf16);
    return 1.0f / sqrtf(sum / (float)size + epsilon);
}

/* exp(x) for x <= 0, with a relative error of 2e-7: 2 to an integer power, times a polynomial of the remainder (the
   coefficients of Cephes' expf). The C library's expf is not vectorised without -ffast-math; this function is.
   x below -87 counts as -87, and NaN stays NaN. */
INLINE float exp_nonpositive(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float whole = x * 1.44269504f + 12582912.0f - 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer */
    const float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float power = 1.9875691500e-4f;
    power = power * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return power * scale;
}
