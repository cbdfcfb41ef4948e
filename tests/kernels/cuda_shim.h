// Runs CUDA C++ on a CPU: compile a .cu as C++17 with `g++ -x c++ -include cuda_shim.h`, and launch by the functions below.
//
//   shim::launch(grid, block, [&] { kernel(arguments); });             one thread after the other, in order
//   shim::launch_together(grid, block, [&] { kernel(arguments); });    every CUDA thread a thread of its own
//
// The second is for kernels that synchronise: __syncthreads() is a barrier of the block, and spins on flags in memory make
// progress (shim::pause() in the loop lets others run). Inside: threadIdx, blockIdx, blockDim, gridDim (x only matters here,
// y and z are 1), atomicAdd, __threadfence and its kin, launch bounds. Inline PTX is not run: code under test has a branch
// `#ifdef BUSBW_CPU_SHIM`, and calls shim::load_aligned, store_aligned, load_acquire, store_release, store_relaxed there. So it
// does for shared memory: `T& mine = shim::shared<T>();` is one T for each block, and __shared__ is refused.
//
// What this proves: indices, heads and tails, alignment (an aligned access elsewhere counts in shim::misaligned),
// arithmetic. What it cannot: the PTX itself, the GPU's memory order, and its speed.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#define BUSBW_CPU_SHIM 1
#define __global__
#define __device__
#define __host__
#define __shared__ static_assert(false, "in the shim a block's memory is shim::shared<T>()");
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx(0, 0, 0), blockIdx(0, 0, 0), blockDim, gridDim;

namespace shim {

inline std::atomic<long long> misaligned{0};  // vector accesses that a GPU would refuse

template <typename V>
V load_aligned(const void* from) {
  if ((uintptr_t)from % sizeof(V)) misaligned++;
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename V>
void store_aligned(void* to, const V& value) {
  if ((uintptr_t)to % sizeof(V)) misaligned++;
  std::memcpy(to, &value, sizeof value);
}

template <typename T>
T load_acquire(const T* from) {
  return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

template <typename T>
void store_release(T* to, T value) {
  __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

template <typename T>
void store_relaxed(T* to, T value) {
  __atomic_store_n(to, value, __ATOMIC_RELAXED);
}

// On a busy machine a thread that only yields is given the core again before whom it waits for: every so often it sleeps.
inline void pause() {
  thread_local unsigned turn = 0;
  if (++turn % 64)
    std::this_thread::yield();
  else
    std::this_thread::sleep_for(std::chrono::microseconds(50));
}

inline float float_from_half(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  uint32_t bits;
  float number;
  if (magnitude >= 0x7c00u) {
    bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  } else if (magnitude >= 0x400u) {
    bits = sign | ((magnitude << 13) + ((127u - 15u) << 23));
  } else {
    number = (float)magnitude / 16777216.0f;  // a denormal's unit is 2**-24
    std::memcpy(&bits, &number, 4);
    bits |= sign;
  }
  std::memcpy(&number, &bits, 4);
  return number;
}

inline uint16_t half_from_float(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {  // below the least normal number: let float addition round to a multiple of 2**-24
    float value, half = 0.5f;
    std::memcpy(&value, &magnitude, 4);
    value += half;
    uint32_t sum, base;
    std::memcpy(&sum, &value, 4);
    std::memcpy(&base, &half, 4);
    return (uint16_t)(sign | (sum - base));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return (uint16_t)(sign | ((magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13));
}

class Barrier {
 public:
  explicit Barrier(unsigned count) : count_(count), waiting_(0), turn_(0) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const unsigned turn = turn_;
    if (++waiting_ == count_) {
      waiting_ = 0;
      turn_++;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return turn != turn_; });
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned count_, waiting_, turn_;
};

// What the threads of one block have in common.
struct Block {
  explicit Block(unsigned threads) : barrier(threads) {}
  Barrier barrier;
  std::mutex mutex;
  std::map<const void*, std::shared_ptr<void>> memory;  // by type
};

inline thread_local Block* block = nullptr;  // null where threads run one after the other

template <typename T>
const char key_of = 0;

// The block's T, filled with rubbish as a GPU's shared memory is.
template <typename T>
T& shared() {
  std::lock_guard<std::mutex> lock(block->mutex);
  std::shared_ptr<void>& there = block->memory[&key_of<T>];
  if (!there) {
    there.reset(operator new(sizeof(T), std::align_val_t(alignof(T))),
                [](void* memory) { operator delete(memory, std::align_val_t(alignof(T))); });
    std::memset(there.get(), 0xA5, sizeof(T));
  }
  return *static_cast<T*>(there.get());
}

template <typename KERNEL>
void launch(unsigned grid, unsigned threads_a_block, KERNEL kernel) {
  gridDim = dim3(grid);
  blockDim = dim3(threads_a_block);
  for (unsigned b = 0; b < grid; b++)
    for (unsigned t = 0; t < threads_a_block; t++) {
      blockIdx.x = b;
      threadIdx.x = t;
      kernel();
    }
}

template <typename KERNEL>
void launch_together(unsigned grid, unsigned threads_a_block, KERNEL kernel) {
  std::vector<std::unique_ptr<Block>> blocks;
  for (unsigned b = 0; b < grid; b++) blocks.push_back(std::make_unique<Block>(threads_a_block));
  std::vector<std::thread> threads;
  for (unsigned b = 0; b < grid; b++)
    for (unsigned t = 0; t < threads_a_block; t++)
      threads.emplace_back([&, b, t] {
        gridDim = dim3(grid);
        blockDim = dim3(threads_a_block);
        blockIdx = dim3(b, 0, 0);
        threadIdx = dim3(t, 0, 0);
        block = blocks[b].get();
        kernel();
      });
  for (auto& thread : threads) thread.join();
}

}  // namespace shim

inline void __syncthreads() {
  if (shim::block) shim::block->barrier.wait();
}
inline void __syncwarp(unsigned = ~0u) { __syncthreads(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { shim::pause(); }

template <typename T>
T atomicAdd(T* to, T value) {
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
