// What hip_runtime.h brings that our kernels use, for clang without ROCm:
//
//   clang++ -x hip --cuda-device-only --offload-arch=gfx90a -nogpuinc -nogpulib -include hip_builtins.h -S kernels.cu
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))

namespace hip_stand_in {
struct Index {
  struct X { __device__ operator unsigned() const { return __builtin_amdgcn_workitem_id_x(); } } x;
};
struct Group {
  struct X { __device__ operator unsigned() const { return __builtin_amdgcn_workgroup_id_x(); } } x;
  struct Y { __device__ operator unsigned() const { return __builtin_amdgcn_workgroup_id_y(); } } y;
};
struct Size {
  struct X { __device__ operator unsigned() const { return __builtin_amdgcn_workgroup_size_x(); } } x;
};
struct Grid {
  struct X {
    __device__ operator unsigned() const { return __builtin_amdgcn_grid_size_x() / __builtin_amdgcn_workgroup_size_x(); }
  } x;
};
}  // namespace hip_stand_in

static const __device__ hip_stand_in::Index threadIdx;
static const __device__ hip_stand_in::Group blockIdx;
static const __device__ hip_stand_in::Size blockDim;
static const __device__ hip_stand_in::Grid gridDim;

__device__ inline __attribute__((always_inline)) void __syncthreads() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

template <typename T>
__device__ T atomicAdd(T* to, T value) {
  return __hip_atomic_fetch_add(to, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
