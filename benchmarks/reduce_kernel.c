/* The yardstick for kernels/cpu.py: the same additions as plain C (gcc -O3 -march=native), with one signature, and the loop
 * that times either. See reduce_kernel.py. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

typedef void kernel(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param);

void c_add(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    float *restrict d = (float *)dst;
    const float *restrict x = (const float *)a, *restrict y = (const float *)b;
    for (int64_t i = 0; i < count; i++) d[i] = x[i] + y[i];
}

void c_add_both(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    float *restrict d = (float *)dst, *restrict e = (float *)dst2;
    const float *restrict x = (const float *)a, *restrict y = (const float *)b;
    for (int64_t i = 0; i < count; i++) d[i] = e[i] = x[i] + y[i];
}

void c_copy(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    memcpy((void *)dst, (const void *)a, count);
}

/* dst and dst2 on a 64-byte line, count a multiple of 64: as the benchmark has them. */
#if defined(__AVX512F__)
#define LANES 16
#define ADD(p, q) _mm512_add_ps(_mm512_loadu_ps(p), _mm512_loadu_ps(q))
#define STREAM _mm512_stream_ps
#define VEC __m512
#elif defined(__AVX__)
#define LANES 8
#define ADD(p, q) _mm256_add_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(q))
#define STREAM _mm256_stream_ps
#define VEC __m256
#endif

#ifdef LANES
void c_add_nt(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    float *d = (float *)dst;
    const float *x = (const float *)a, *y = (const float *)b;
    for (int64_t i = 0; i < count; i += 4 * LANES)
        for (int64_t j = i; j < i + 4 * LANES; j += LANES) STREAM(d + j, ADD(x + j, y + j));
    _mm_sfence();
}

void c_add_both_nt(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    float *d = (float *)dst, *e = (float *)dst2;
    const float *x = (const float *)a, *y = (const float *)b;
    for (int64_t i = 0; i < count; i += LANES) {
        VEC sum = ADD(x + i, y + i);
        STREAM(d + i, sum);
        STREAM(e + i, sum);
    }
    _mm_sfence();
}
#else
void c_add_nt(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    c_add(dst, dst2, a, b, count, param);
}
void c_add_both_nt(int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t param) {
    c_add_both(dst, dst2, a, b, count, param);
}
#endif

struct work {
    kernel *run;
    int64_t dst, dst2, a, b, count, repeats;
    pthread_barrier_t *barrier;
    double start, end;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *worker(void *argument) {
    struct work *w = argument;
    pthread_barrier_wait(w->barrier);
    w->start = now();
    for (int64_t r = 0; r < w->repeats; r++) w->run(w->dst, w->dst2, w->a, w->b, w->count, 1);
    w->end = now();
    return NULL;
}

/* Seconds for one call: `threads` (at most 64) share `count` units of `size` bytes equally and each repeats its part. */
double seconds(kernel *run, int threads, int64_t dst, int64_t dst2, int64_t a, int64_t b, int64_t count, int64_t size,
               int64_t repeats) {
    pthread_barrier_t barrier;
    pthread_t id[64];
    struct work w[64];
    int64_t part = count / threads;
    pthread_barrier_init(&barrier, NULL, threads);
    for (int t = 0; t < threads; t++) {
        int64_t at = t * part * size;
        w[t] = (struct work){run, dst + at, dst2 + at, a + at, b + at, part, repeats, &barrier, 0, 0};
        if (t) pthread_create(&id[t], NULL, worker, &w[t]);
    }
    worker(&w[0]);
    double start = w[0].start, end = w[0].end;
    for (int t = 1; t < threads; t++) {
        pthread_join(id[t], NULL);
        if (w[t].start < start) start = w[t].start;
        if (w[t].end > end) end = w[t].end;
    }
    pthread_barrier_destroy(&barrier);
    return (end - start) / repeats;
}
