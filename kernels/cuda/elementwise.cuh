// Reduce and copy as device functions of any group of threads. Include this from a persistent kernel.
//
//   reduce<type_float32, Sum>(share_of_block(), dst, dst2, a, b, count, param);
//   reduce_many<type_float32, Sum>(share_of_block(), dst, dst2, table, k, count, param);
//   copy(share_of_block(), dst, dst2, src, bytes);
//
// dst2 is a second destination for the same result, or null. dst and dst2 may each be a source exactly, or touch none.
// Arrays start at multiples of their element's size; 128-bit accesses are used for all arrays that lie alike in their
// 16 bytes, and smaller ones else. No function synchronises: the caller orders what it reads and publishes what it wrote.
// Nothing is read through the read-only cache, so what other threads wrote before an acquire is seen after it.
#pragma once

#include "ops.cuh"
#include "vector.cuh"

namespace busbw {

template <typename T, typename OP, bool ALIGNED>
struct Reduce {
  typedef typename T::storage S;
  S *dst, *dst2;
  const S *a, *b;
  int64 param;

  __device__ __forceinline__ S result(S x, S y) const {
    return T::narrow(OP::finish(OP::apply(T::widen(x), T::widen(y)), param));
  }

  __device__ __forceinline__ void one(int64 i) const {
    const S value = result(*(const volatile S*)(a + i), *(const volatile S*)(b + i));
    dst[i] = value;
    if (dst2) dst2[i] = value;
  }

  template <int N>
  __device__ __forceinline__ void vectors(int64 i, int64 stride) const {
    Lanes<S> x[N], y[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
      x[n].vector = load<ALIGNED>(a + i + n * stride);
      y[n].vector = load<ALIGNED>(b + i + n * stride);
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int lane = 0; lane < (int)(16 / sizeof(S)); lane++) x[n].at[lane] = result(x[n].at[lane], y[n].at[lane]);
      store_vector(dst + i + n * stride, x[n].vector);
    }
    if (!dst2) return;
#pragma unroll
    for (int n = 0; n < N; n++) store<ALIGNED>(dst2 + i + n * stride, x[n].vector);
  }
};

template <typename T, typename OP>
__device__ __forceinline__ void reduce(Share share, typename T::storage* dst, typename T::storage* dst2,
                                       const typename T::storage* a, const typename T::storage* b, int64 count,
                                       int64 param) {
  if (together(dst, a) && together(dst, b) && (!dst2 || together(dst, dst2))) {
    Reduce<T, OP, true> work = {dst, dst2, a, b, param};
    walk<InFlight<true>::vectors>(share, dst, count, work);
  } else {
    Reduce<T, OP, false> work = {dst, dst2, a, b, param};
    walk<InFlight<false>::vectors>(share, dst, count, work);
  }
}

// k >= 1 sources, accumulated in the type of arithmetic from the first to the last and rounded to storage once.
template <typename T, typename OP, bool ALIGNED>
struct ReduceMany {
  typedef typename T::storage S;
  typedef typename T::number N;
  S *dst, *dst2;
  const S* const* sources;
  int64 k, param;

  __device__ __forceinline__ void one(int64 i) const {
    N sum = T::widen(*(const volatile S*)(sources[0] + i));
    for (int64 j = 1; j < k; j++) sum = OP::apply(sum, T::widen(*(const volatile S*)(sources[j] + i)));
    const S value = T::narrow(OP::finish(sum, param));
    dst[i] = value;
    if (dst2) dst2[i] = value;
  }

  // One vector of each source at a time: `batch` sources bring as many loads in flight as `batch` vectors would.
  template <int ONE>
  __device__ __forceinline__ void vectors(int64 i, int64) const {
    const int lanes = 16 / sizeof(S);
    const int batch = ALIGNED ? 4 : 1;
    Lanes<S> x[batch];
    N sum[lanes];
    x[0].vector = load<ALIGNED>(sources[0] + i);
#pragma unroll
    for (int lane = 0; lane < lanes; lane++) sum[lane] = T::widen(x[0].at[lane]);
    int64 j = 1;
#pragma unroll 1
    for (; j + batch <= k; j += batch) {
#pragma unroll
      for (int m = 0; m < batch; m++) x[m].vector = load<ALIGNED>(sources[j + m] + i);
#pragma unroll
      for (int m = 0; m < batch; m++)
#pragma unroll
        for (int lane = 0; lane < lanes; lane++) sum[lane] = OP::apply(sum[lane], T::widen(x[m].at[lane]));
    }
#pragma unroll 1
    for (; j < k; j++) {
      x[0].vector = load<ALIGNED>(sources[j] + i);
#pragma unroll
      for (int lane = 0; lane < lanes; lane++) sum[lane] = OP::apply(sum[lane], T::widen(x[0].at[lane]));
    }
#pragma unroll
    for (int lane = 0; lane < lanes; lane++) x[0].at[lane] = T::narrow(OP::finish(sum[lane], param));
    store_vector(dst + i, x[0].vector);
    if (dst2) store<ALIGNED>(dst2 + i, x[0].vector);
  }
};

template <typename T, typename OP>
__device__ __forceinline__ void reduce_many(Share share, typename T::storage* dst, typename T::storage* dst2,
                                            const typename T::storage* const* sources, int64 k, int64 count,
                                            int64 param) {
  bool aligned = !dst2 || together(dst, dst2);
  for (int64 j = 0; j < k; j++) aligned = aligned && together(dst, sources[j]);
  if (aligned) {
    ReduceMany<T, OP, true> work = {dst, dst2, sources, k, param};
    walk<1>(share, dst, count, work);
  } else {
    ReduceMany<T, OP, false> work = {dst, dst2, sources, k, param};
    walk<1>(share, dst, count, work);
  }
}

template <bool ALIGNED>
struct Copy {
  byte *dst, *dst2;
  const byte* src;

  __device__ __forceinline__ void one(int64 i) const {
    const byte value = *(const volatile byte*)(src + i);
    dst[i] = value;
    if (dst2) dst2[i] = value;
  }

  template <int N>
  __device__ __forceinline__ void vectors(int64 i, int64 stride) const {
    Vector x[N];
#pragma unroll
    for (int n = 0; n < N; n++) x[n] = load<ALIGNED>(src + i + n * stride);
#pragma unroll
    for (int n = 0; n < N; n++) store_vector(dst + i + n * stride, x[n]);
    if (!dst2) return;
#pragma unroll
    for (int n = 0; n < N; n++) store<ALIGNED>(dst2 + i + n * stride, x[n]);
  }
};

__device__ __forceinline__ void copy(Share share, void* dst, void* dst2, const void* src, int64 bytes) {
  if (together(dst, src) && (!dst2 || together(dst, dst2))) {
    Copy<true> work = {(byte*)dst, (byte*)dst2, (const byte*)src};
    walk<InFlight<true>::vectors>(share, (const byte*)dst, bytes, work);
  } else {
    Copy<false> work = {(byte*)dst, (byte*)dst2, (const byte*)src};
    walk<InFlight<false>::vectors>(share, (const byte*)dst, bytes, work);
  }
}

}  // namespace busbw
