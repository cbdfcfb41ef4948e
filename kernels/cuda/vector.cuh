// 128-bit loads and stores, and the walk over an array that uses them.
//
// Any group of threads can share a walk: a whole grid (kernels.cu), or the threads of one block in a persistent kernel
// that walks a schedule table. A `Share` says which thread of how many this is; the group needs no other knowledge.
//
//   dst   ...|--------|--------|--------|--------|...      | = a multiple of 16 bytes
//          h1 vector 0  vector 1  vector 2  vector 3 t     h, t: elements before and after, one by one
//   thread 0 1     0        1         2        0   ...     of a Share of 3
#pragma once

#include "types.cuh"

namespace busbw {

template <typename S>
union Lanes {
  Vector vector;
  S at[16 / sizeof(S)];
};

// A vector that starts at any multiple of sizeof(S), in pieces as large as its alignment allows.
template <typename S>
__device__ __forceinline__ Vector load_pieces(const S* from) {
  if (((uint64)from & 15) == 0) return load_vector(from);
  Vector v;
  if (((uint64)from & 3) == 0) {
    const volatile unsigned* words = (const volatile unsigned*)from;
#pragma unroll
    for (int i = 0; i < 4; i++) v.word[i] = words[i];
    return v;
  }
  Lanes<S> lanes;
#pragma unroll
  for (int i = 0; i < (int)(16 / sizeof(S)); i++) lanes.at[i] = ((const volatile S*)from)[i];
  return lanes.vector;
}

template <typename S>
__device__ __forceinline__ void store_pieces(S* to, Vector v) {
  if (((uint64)to & 15) == 0) return store_vector(to, v);
  if (((uint64)to & 3) == 0) {
    volatile unsigned* words = (volatile unsigned*)to;
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = v.word[i];
    return;
  }
  Lanes<S> lanes;
  lanes.vector = v;
#pragma unroll
  for (int i = 0; i < (int)(16 / sizeof(S)); i++) ((volatile S*)to)[i] = lanes.at[i];
}

template <bool ALIGNED, typename S>
__device__ __forceinline__ Vector load(const S* from) {
  if (ALIGNED) return load_vector(from);
  return load_pieces(from);
}

template <bool ALIGNED, typename S>
__device__ __forceinline__ void store(S* to, Vector v) {
  if (ALIGNED) store_vector(to, v);
  else store_pieces(to, v);
}

__device__ __forceinline__ bool together(const void* p, const void* q) {  // in one place of a vector
  return (((uint64)p ^ (uint64)q) & 15) == 0;
}

struct Share {
  int64 index, size;  // 0 <= index < size
};

__device__ __forceinline__ Share share_of_grid() {
  Share share = {(int64)blockIdx.x * blockDim.x + threadIdx.x, (int64)gridDim.x * blockDim.x};
  return share;
}

__device__ __forceinline__ Share share_of_block() {
  Share share = {(int64)threadIdx.x, (int64)blockDim.x};
  return share;
}

// Vectors that a thread loads, of each source, before it stores. Those in pieces are many instructions as it is.
template <bool ALIGNED>
struct InFlight {
  static const int vectors = ALIGNED ? 4 : 1;
};

// Call `work` for all of `count` elements: work.one(i) for an element, work.vectors<N>(i, stride) for N vectors that
// begin at elements i, i + stride, ... N is IN_FLIGHT or 1. `first`: the array whose vectors are aligned.
template <int IN_FLIGHT, typename S, typename WORK>
__device__ __forceinline__ void walk(Share share, const S* first, int64 count, WORK& work) {
  const int64 lanes = 16 / sizeof(S);
  int64 head = (int64)((16 - ((uint64)first & 15)) & 15) / (int64)sizeof(S);
  if (head > count) head = count;
  const int64 tail = head + (count - head) / lanes * lanes;  // where the last vector ends
  // Head and tail in one loop: both are shorter than a vector, and most walks have neither. It comes first, so that what it
  // needs is not kept in registers beside the vectors.
#pragma unroll 1
  for (int64 i = share.index; i < head + count - tail; i += share.size) work.one(i < head ? i : i - head + tail);
  const int64 stride = share.size * lanes;
  int64 at = head + share.index * lanes;
  if (IN_FLIGHT > 1) {
#pragma unroll 1
    for (; at + (IN_FLIGHT - 1) * stride < tail; at += IN_FLIGHT * stride) work.template vectors<IN_FLIGHT>(at, stride);
  }
#pragma unroll 1
  for (; at < tail; at += stride) work.template vectors<1>(at, 0);
}

}  // namespace busbw
