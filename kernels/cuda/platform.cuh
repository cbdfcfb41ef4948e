// What differs between a GPU of NVIDIA, one of AMD, and the CPU that stands in for both in tests. Inline assembly elsewhere is
// for newer NVIDIA GPUs alone (__CUDA_ARCH__), beside code that all can run.
//
//   load_acquire, store_relaxed, fence, add_acquire_release    flags in memory, at the scope of the GPU or, with
//                                                              -DBUSBW_SCOPE_SYS, of the whole system
//   load_vector, store_vector                                  128 bits
//   float_from_half, half_from_float                           to nearest even
//   nanoseconds                                                a clock, the same for all blocks of a device
//
// BUSBW_CPU_SHIM: defined by tests/kernels/cuda_shim.h, which brings its own. __HIP__: clang's, for AMD's.
#pragma once

#ifdef BUSBW_CPU_SHIM
#include <chrono>
#endif

#ifdef BUSBW_SCOPE_SYS
#define BUSBW_SCOPE "sys"
#define BUSBW_HIP_SCOPE __HIP_MEMORY_SCOPE_SYSTEM
#define BUSBW_HIP_FENCE ""
#else
#define BUSBW_SCOPE "gpu"
#define BUSBW_HIP_SCOPE __HIP_MEMORY_SCOPE_AGENT
#define BUSBW_HIP_FENCE "agent"
#endif

namespace busbw {

typedef long long int64;

__device__ __forceinline__ int64 load_acquire(const int64* word) {
#if defined(BUSBW_CPU_SHIM)
  return shim::load_acquire(word);
#elif defined(__HIP__)
  return __hip_atomic_load(word, __ATOMIC_ACQUIRE, BUSBW_HIP_SCOPE);
#else
  int64 value;
  asm volatile("ld.acquire." BUSBW_SCOPE ".global.s64 %0, [%1];"
               : "=l"(value)
               : "l"(__cvta_generic_to_global(word))
               : "memory");
  return value;
#endif
}

// Flags stored after it publish all that this thread, and whoever it has heard from, wrote before it.
__device__ __forceinline__ void fence() {
#if defined(BUSBW_CPU_SHIM)
  __threadfence();
#elif defined(__HIP__)
  __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, BUSBW_HIP_FENCE);
#else
  asm volatile("fence.acq_rel." BUSBW_SCOPE ";" ::: "memory");
#endif
}

__device__ __forceinline__ void store_relaxed(int64* word, int64 value) {
#if defined(BUSBW_CPU_SHIM)
  shim::store_relaxed(word, value);
#elif defined(__HIP__)
  __hip_atomic_store(word, value, __ATOMIC_RELAXED, BUSBW_HIP_SCOPE);
#else
  asm volatile("st.relaxed." BUSBW_SCOPE ".global.s64 [%0], %1;" ::"l"(__cvta_generic_to_global(word)), "l"(value)
               : "memory");
#endif
}

// The value before; releases what the block wrote before, and acquires what the others released.
__device__ __forceinline__ int64 add_acquire_release(int64* word, int64 value) {
#if defined(BUSBW_CPU_SHIM)
  return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
#elif defined(__HIP__)
  return __hip_atomic_fetch_add(word, value, __ATOMIC_ACQ_REL, BUSBW_HIP_SCOPE);
#else
  int64 before;
  asm volatile("atom.add.acq_rel." BUSBW_SCOPE ".global.u64 %0, [%1], %2;"
               : "=l"(before)
               : "l"(__cvta_generic_to_global(word)), "l"(value)
               : "memory");
  return before;
#endif
}

__device__ __forceinline__ int64 nanoseconds() {
#if defined(BUSBW_CPU_SHIM)
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
#elif defined(__HIP__)
  return 10 * (int64)__builtin_readsteadycounter();  // AMD's counts at 100 MHz
#else
  int64 now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
#endif
}

struct alignas(16) Vector {
  unsigned word[4];
};

// Volatile and with a memory clobber: a persistent kernel reads what others have written since it started, so no load
// may move before the acquire of its flag, nor be taken from an earlier one. `global`: the compiler cannot know it of an
// address from a table, and generic loads are slower. Addresses: multiples of 16.
__device__ __forceinline__ Vector load_vector(const void* from) {
#if defined(BUSBW_CPU_SHIM)
  return shim::load_aligned<Vector>(from);
#elif defined(__HIP__)
  typedef unsigned Words __attribute__((ext_vector_type(4)));
  union { Words words; Vector vector; } both;
  both.words = *(const volatile __attribute__((address_space(1))) Words*)from;
  return both.vector;
#else
  Vector v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
#endif
}

__device__ __forceinline__ void store_vector(void* to, Vector v) {
#if defined(BUSBW_CPU_SHIM)
  shim::store_aligned(to, v);
#elif defined(__HIP__)
  typedef unsigned Words __attribute__((ext_vector_type(4)));
  union { Vector vector; Words words; } both = {v};
  *(volatile __attribute__((address_space(1))) Words*)to = both.words;
#else
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(to)), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
               : "memory");
#endif
}

__device__ __forceinline__ float float_from_half(unsigned short bits) {
#if defined(BUSBW_CPU_SHIM)
  return shim::float_from_half(bits);
#elif defined(__HIP__)
  return (float)__builtin_bit_cast(_Float16, bits);
#else
  float number;
  asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
  return number;
#endif
}

__device__ __forceinline__ unsigned short half_from_float(float number) {
#if defined(BUSBW_CPU_SHIM)
  return shim::half_from_float(number);
#elif defined(__HIP__)
  return __builtin_bit_cast(unsigned short, (_Float16)number);
#else
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(number));
  return bits;
#endif
}

}  // namespace busbw
