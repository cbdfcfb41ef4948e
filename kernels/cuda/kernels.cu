// The kernels of one element type: compile with -DBUSBW_DTYPE=float32 (busbw's name of the dtype).
//
// Names are plain (extern "C"): reduce_sum, many_sum, ..., copy, fill_1 ... fill_8, check_range, check_exact_1 ... _8.
// -DBUSBW_BITS_ALONE leaves out what does arithmetic, and compiles in a fraction of the time.
// Any grid of one dimension will do, since each is a grid-stride walk; BUSBW_THREADS is the largest block.
#include "elementwise.cuh"
#include "pattern.cuh"

#ifndef BUSBW_THREADS
#define BUSBW_THREADS 512
#endif
#define BUSBW_PASTE(x, y) x##y
#define BUSBW_TYPE_OF(dtype) BUSBW_PASTE(busbw::type_, dtype)
#define BUSBW_KERNEL extern "C" __global__ void __launch_bounds__(BUSBW_THREADS)
// Two blocks a processor, which is 64 registers a thread; told so, the compiler puts all loads of a turn before their first use.
#define BUSBW_STREAMING extern "C" __global__ void __launch_bounds__(BUSBW_THREADS, 2)

typedef BUSBW_TYPE_OF(BUSBW_DTYPE) T;
typedef T::storage S;

#define BUSBW_REDUCE(name, OP)                                                                                  \
  BUSBW_STREAMING reduce_##name(S* dst, S* dst2, const S* a, const S* b, long long count, long long param) {        \
    busbw::reduce<T, busbw::OP>(busbw::share_of_grid(), dst, dst2, a, b, count, param);                          \
  }                                                                                                              \
  BUSBW_KERNEL many_##name(S* dst, S* dst2, const S* const* sources, long long k, long long count,               \
                           long long param) {                                                                    \
    busbw::reduce_many<T, busbw::OP>(busbw::share_of_grid(), dst, dst2, sources, k, count, param);               \
  }

#ifndef BUSBW_BITS_ALONE
BUSBW_REDUCE(sum, Sum)
BUSBW_REDUCE(prod, Prod)
BUSBW_REDUCE(min, Min)
BUSBW_REDUCE(max, Max)
BUSBW_REDUCE(avg_final, AvgFinal)

// wrong: one counter for the whole grid, to which is added.
BUSBW_KERNEL check_range(const S* dst, const T::bound* low, const T::bound* high, long long count, long long start,
                         unsigned long long* wrong) {
  busbw::CheckRange<T> work = {dst, low, high, start, 0};
  busbw::walk<4>(busbw::share_of_grid(), dst, count, work);
  if (work.wrong) atomicAdd(wrong, work.wrong);
}
#endif

BUSBW_STREAMING copy(void* dst, void* dst2, const void* src, long long bytes) {
  busbw::copy(busbw::share_of_grid(), dst, dst2, src, bytes);
}

#define BUSBW_PATTERN(size, BITS)                                                                               \
  BUSBW_KERNEL fill_##size(BITS* dst, const BITS* table, long long count, long long start) {                     \
    busbw::Fill<BITS> work = {dst, table, start};                                                                \
    busbw::walk<4>(busbw::share_of_grid(), dst, count, work);                                                       \
  }                                                                                                              \
  BUSBW_KERNEL check_exact_##size(const BITS* dst, const BITS* table, long long count, long long start,          \
                                  unsigned long long* wrong) {                                                   \
    busbw::CheckExact<BITS> work = {dst, table, start, 0};                                                       \
    busbw::walk<4>(busbw::share_of_grid(), dst, count, work);                                                       \
    if (work.wrong) atomicAdd(wrong, work.wrong);                                                                \
  }

// These move bits, whatever they mean: one module of the four dtypes that hold them is enough, and has them all.
#ifdef BUSBW_WITH_BITS
BUSBW_PATTERN(1, unsigned char)
BUSBW_PATTERN(2, unsigned short)
BUSBW_PATTERN(4, unsigned int)
BUSBW_PATTERN(8, unsigned long long)
#endif
