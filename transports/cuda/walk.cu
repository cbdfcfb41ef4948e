// The schedule on a GPU: programs (transports/program.py) walked by blocks, with flags in device memory.
//
// Compile with -DBUSBW_DTYPE=float32 -DBUSBW_OP=Sum -DBUSBW_FINAL_OP=Sum (avg: Sum and AvgFinal) and
// -DBUSBW_SCOPE_SYS where ranks lie on several GPUs. An instruction's FN is 1 reduce, 2 reduce_final, 3 copy (bytes).
//
//   walk       one cooperative launch runs whole all-reduces: `blocks_a_rank` blocks walk each rank's program, wait for the
//              flags of other ranks with acquire loads and publish with release stores; the grid must be resident at once
//   run_rows   one launch a step: rows whose waits are over, a grid row each; the launch's end is the barrier
#include "elementwise.cuh"
#ifdef BUSBW_CPU_SHIM
#include <chrono>
#endif

#ifndef BUSBW_THREADS
#define BUSBW_THREADS 512
#endif
#ifdef BUSBW_SCOPE_SYS
#define BUSBW_SCOPE "sys"
#else
#define BUSBW_SCOPE "gpu"
#endif
#define BUSBW_PASTE(x, y) x##y
#define BUSBW_TYPE_OF(dtype) BUSBW_PASTE(busbw::type_, dtype)

typedef BUSBW_TYPE_OF(BUSBW_DTYPE) T;
typedef T::storage S;
using busbw::int64;

// The columns of program.py, in its order.
struct Row {
  int64 kind, wait, wait_k, fn, dst, dst2, a, b, count, param, post, post_k, post2, post2_k, peer, slot;
};

enum { REDUCE = 1, REDUCE_FINAL = 2, COPY = 3 };
enum { OK = 0, ABORTED = 1 };
enum { EPOCH_SHIFT = 24 };

__device__ __forceinline__ int64 load_acquire(const int64* word) {
#ifdef BUSBW_CPU_SHIM
  return shim::load_acquire(word);
#else
  int64 value;
  asm volatile("ld.acquire." BUSBW_SCOPE ".global.s64 %0, [%1];"
               : "=l"(value)
               : "l"(__cvta_generic_to_global(word))
               : "memory");
  return value;
#endif
}

__device__ __forceinline__ void store_release(int64* word, int64 value) {
#ifdef BUSBW_CPU_SHIM
  shim::store_release(word, value);
#else
  asm volatile("st.release." BUSBW_SCOPE ".global.s64 [%0], %1;" ::"l"(__cvta_generic_to_global(word)), "l"(value)
               : "memory");
#endif
}

// The value before; releases what the block wrote before, and acquires what the others released.
__device__ __forceinline__ int64 add_acquire_release(int64* word, int64 value) {
#ifdef BUSBW_CPU_SHIM
  return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
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
#ifdef BUSBW_CPU_SHIM
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
#else
  int64 now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
#endif
}

template <typename A, typename B>
struct is_same {
  static const bool value = false;
};
template <typename A>
struct is_same<A, A> {
  static const bool value = true;
};

// row.fn is not 0.
__device__ __forceinline__ void execute(const Row& row, busbw::Share share) {
  if (row.fn == COPY)
    busbw::copy(share, (void*)row.dst, (void*)row.dst2, (const void*)row.a, row.count);
  else if (row.fn == REDUCE && !is_same<busbw::BUSBW_OP, busbw::BUSBW_FINAL_OP>::value)  // else the code is there twice
    busbw::reduce<T, busbw::BUSBW_OP>(share, (S*)row.dst, (S*)row.dst2, (const S*)row.a, (const S*)row.b, row.count,
                                      row.param);
  else
    busbw::reduce<T, busbw::BUSBW_FINAL_OP>(share, (S*)row.dst, (S*)row.dst2, (const S*)row.a, (const S*)row.b,
                                            row.count, row.param);
}

// Poll until the word reaches `target`. False: the job was aborted, or the time is over, which aborts it for all.
__device__ __forceinline__ bool wait_for(const int64* word, int64 target, int64* abort, int64 deadline) {
  for (int64 turn = 1; load_acquire(word) < target; turn++) {
#ifdef BUSBW_CPU_SHIM
    shim::pause();
#endif
    if (turn % 256) continue;
    if (load_acquire(abort)) return false;
    if (nanoseconds() > deadline) {
      store_release(abort, 1);
      return false;
    }
  }
  return true;
}

// code: rows of all ranks of this device, those of even epochs, then `rows_in_all` rows on those of odd ones.
// first, rows, calls: [ranks] where a rank's rows begin, how many they are, how many of them call something.
// arrived: [ranks] words, 0 before epoch `epoch_0`: blocks that have finished a call of their rank, ever.
// Runs all-reduces `epoch` ... epoch + inner - 1. abort: one word, for all devices; limit_ns: patience of one wait.
extern "C" __global__ void __launch_bounds__(BUSBW_THREADS)
    walk(const Row* code, int64 rows_in_all, const int64* first, const int64* rows, const int64* calls, int64* arrived,
         int64 blocks_a_rank, int64 epoch_0, int64 epoch, int64 inner, int64* abort, int64 limit_ns) {
  __shared__ int stop;
  const int64 rank = blockIdx.x / blocks_a_rank, block = blockIdx.x % blocks_a_rank;
  const busbw::Share share = {block * blockDim.x + threadIdx.x, blocks_a_rank * blockDim.x};
  int64 meetings = (epoch - epoch_0) * calls[rank];  // calls after which the rank's blocks have met
  if (threadIdx.x == 0) stop = 0;
  __syncthreads();
  for (int64 e = epoch; e < epoch + inner; e++) {
    const int64 stamp = e << EPOCH_SHIFT;
    const Row* program = code + (e & 1) * rows_in_all + first[rank];
    for (int64 i = 0; i < rows[rank]; i++) {
      const Row& row = program[i];  // read where it is used: a copy of all columns would not leave registers for vectors
      const int64 fn = row.fn;
      if (row.wait) {
        if (threadIdx.x == 0 && !wait_for((const int64*)row.wait, stamp + row.wait_k, abort, nanoseconds() + limit_ns))
          stop = 1;
        __syncthreads();
        if (stop) return;
      }
      bool posts = block == 0 && threadIdx.x == 0;
      if (fn) {
        execute(row, share);
        __syncthreads();
        meetings++;
        if (blocks_a_rank > 1) {
          // The last block to finish publishes; the others wait for it, as what follows may read what any block wrote.
          if (threadIdx.x == 0)
            posts = add_acquire_release(arrived + rank, 1) + 1 == meetings * blocks_a_rank;
        }
      }
      if (posts) {
        if (row.post) store_release((int64*)row.post, stamp + row.post_k);
        if (row.post2) store_release((int64*)row.post2, stamp + row.post2_k);
      }
      if (fn && blocks_a_rank > 1) {
        if (threadIdx.x == 0 &&
            !wait_for(arrived + rank, meetings * blocks_a_rank, abort, nanoseconds() + limit_ns))
          stop = 1;
        __syncthreads();
        if (stop) return;
      }
    }
  }
}

// rows: of one step, all ranks; grid: (blocks a row, rows).
extern "C" __global__ void __launch_bounds__(BUSBW_THREADS) run_rows(const Row* rows) {
  const busbw::Share share = {(int64)blockIdx.x * blockDim.x + threadIdx.x, (int64)gridDim.x * blockDim.x};
  const Row& row = rows[blockIdx.y];
  execute(row, share);
}
