// Fill with the test pattern, and count what is not right. Element i gets entry h(i) of a table of 256, with
// h(i) = ((i * 2654435761) mod 2**32) >> 24, as on the CPU. Tables are aligned to their elements.
#pragma once

#include "vector.cuh"

namespace busbw {

__device__ __forceinline__ int table_index(int64 i) { return (int)(((unsigned)i * 2654435761u) >> 24); }

template <typename S>
struct Fill {
  S* dst;
  const S* table;
  int64 start;

  __device__ __forceinline__ void one(int64 i) const { dst[i] = table[table_index(start + i)]; }

  template <int N>
  __device__ __forceinline__ void vectors(int64 i, int64 stride) const {
#pragma unroll
    for (int n = 0; n < N; n++, i += stride) {
      Lanes<S> x;
#pragma unroll
      for (int lane = 0; lane < (int)(16 / sizeof(S)); lane++) x.at[lane] = table[table_index(start + i + lane)];
      store_vector(dst + i, x.vector);
    }
  }
};

// How many elements a thread found outside low[h] ... high[h]. NaN is within nothing.
template <typename T>
struct CheckRange {
  typedef typename T::storage S;
  typedef typename T::bound BOUND;
  const S* dst;
  const BOUND *low, *high;
  int64 start;
  uint64 wrong;

  __device__ __forceinline__ void look(S stored, int64 i) {
    const int h = table_index(start + i);
    const BOUND value = (BOUND)T::widen(stored);
    if (!(low[h] <= value && value <= high[h])) wrong++;
  }

  __device__ __forceinline__ void one(int64 i) { look(dst[i], i); }

  template <int N>
  __device__ __forceinline__ void vectors(int64 i, int64 stride) {
    Lanes<S> x[N];
#pragma unroll
    for (int n = 0; n < N; n++) x[n].vector = load_vector(dst + i + n * stride);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int lane = 0; lane < (int)(16 / sizeof(S)); lane++) look(x[n].at[lane], i + n * stride + lane);
  }
};

// How many elements differ in any bit from table[h]. BITS: an unsigned integer of the element's size.
template <typename BITS>
struct CheckExact {
  const BITS *dst, *table;
  int64 start;
  uint64 wrong;

  __device__ __forceinline__ void one(int64 i) {
    if (dst[i] != table[table_index(start + i)]) wrong++;
  }

  template <int N>
  __device__ __forceinline__ void vectors(int64 i, int64 stride) {
    Lanes<BITS> x[N];
#pragma unroll
    for (int n = 0; n < N; n++) x[n].vector = load_vector(dst + i + n * stride);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int lane = 0; lane < (int)(16 / sizeof(BITS)); lane++)
        if (x[n].at[lane] != table[table_index(start + i + n * stride + lane)]) wrong++;
  }
};

}  // namespace busbw
