// What differs between a GPU of NVIDIA, one of AMD, and the CPU that stands in for both in tests.
#pragma once

#ifdef BUSBW_CPU_SHIM
#include <chrono>
#endif

namespace busbw {

// A clock that counts nanoseconds, the same for all blocks of a device.
__device__ __forceinline__ long long nanoseconds() {
#ifdef BUSBW_CPU_SHIM
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
#else
  long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
#endif
}

}  // namespace busbw
