// op(x, y) on the type arithmetic is done in, as the CPU backend defines it: integers wrap around; min and max of
// floats give NaN if either is NaN; avg_final adds, then divides by the number of contributions (integers: towards 0).
#pragma once

#include "types.cuh"

namespace busbw {

__device__ __forceinline__ float add(float x, float y) { return x + y; }
__device__ __forceinline__ double add(double x, double y) { return x + y; }
__device__ __forceinline__ float multiply(float x, float y) { return x * y; }
__device__ __forceinline__ double multiply(double x, double y) { return x * y; }
__device__ __forceinline__ float divide(float x, int64 by) { return x / (float)by; }
__device__ __forceinline__ double divide(double x, int64 by) { return x / (double)by; }
__device__ __forceinline__ int64 divide(int64 x, int64 by) { return x / by; }
__device__ __forceinline__ uint64 divide(uint64 x, int64 by) { return x / (uint64)by; }

// Unsigned, because signed overflow is undefined in C++; of 64 bits, because the compiler drops what is not kept.
template <typename INTEGER>
__device__ __forceinline__ INTEGER add(INTEGER x, INTEGER y) {
  return (INTEGER)((uint64)x + (uint64)y);
}

template <typename INTEGER>
__device__ __forceinline__ INTEGER multiply(INTEGER x, INTEGER y) {
  return (INTEGER)((uint64)x * (uint64)y);
}

template <typename INTEGER>
__device__ __forceinline__ INTEGER divide(INTEGER x, int64 by) {  // 8 and 32 bits; 64-bit division is slow
  return by <= 0x7fffffff ? (INTEGER)((int)x / (int)by) : (INTEGER)((int64)x / by);
}

// `finish` is applied once, to the last result: for two summands or for many.
struct Sum {
  template <typename N> static __device__ __forceinline__ N apply(N x, N y) { return add(x, y); }
  template <typename N> static __device__ __forceinline__ N finish(N x, int64) { return x; }
};
struct Prod {
  template <typename N> static __device__ __forceinline__ N apply(N x, N y) { return multiply(x, y); }
  template <typename N> static __device__ __forceinline__ N finish(N x, int64) { return x; }
};
struct Min {
  template <typename N> static __device__ __forceinline__ N apply(N x, N y) { return x != x || x < y ? x : y; }
  template <typename N> static __device__ __forceinline__ N finish(N x, int64) { return x; }
};
struct Max {
  template <typename N> static __device__ __forceinline__ N apply(N x, N y) { return x != x || x > y ? x : y; }
  template <typename N> static __device__ __forceinline__ N finish(N x, int64) { return x; }
};
struct AvgFinal {
  template <typename N> static __device__ __forceinline__ N apply(N x, N y) { return add(x, y); }
  template <typename N> static __device__ __forceinline__ N finish(N x, int64 by) { return divide(x, by); }
};

}  // namespace busbw
