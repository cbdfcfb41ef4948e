// The schedule on a GPU: programs (transports/program.py) walked by blocks, with flags in device memory.
//
// Compile with -DBUSBW_DTYPE=float32 -DBUSBW_OP=Sum -DBUSBW_FINAL_OP=Sum (avg: Sum and AvgFinal) and
// -DBUSBW_SCOPE_SYS where ranks lie on several GPUs. An instruction's FN is 1 reduce, 2 reduce_final, 3 copy (bytes).
//
//   walk       one cooperative launch runs whole all-reduces: `blocks_a_rank` blocks walk each rank's program, wait for the
//              flags of other ranks and publish their own; the grid must be resident at once
//   run_rows   one launch a step: rows whose waits are over, a grid row each; the launch's end is the barrier
//
// Flags only grow, because all that a rank posts is in one order. With several blocks a rank, the block that finishes a call
// last posts that call's flags, and goes on posting for rows without a call until the next call finishes: posts between two
// calls are in one thread's order, and its arrival at the next call comes before whatever the next last block posts.
#include "elementwise.cuh"
#include "platform.cuh"

#ifndef BUSBW_THREADS
#define BUSBW_THREADS 512
#endif
#define BUSBW_PASTE(x, y) x##y
#define BUSBW_TYPE_OF(dtype) BUSBW_PASTE(busbw::type_, dtype)

typedef BUSBW_TYPE_OF(BUSBW_DTYPE) T;
typedef T::storage S;
using busbw::add_acquire_release;
using busbw::fence;
using busbw::int64;
using busbw::load_acquire;
using busbw::nanoseconds;
using busbw::store_relaxed;

// The columns of program.py, in its order.
struct alignas(16) Row {
  int64 kind, wait, wait_k, fn, dst, dst2, a, b, count, param, post, post_k, post2, post2_k, peer, slot;
};

enum { REDUCE = 1, REDUCE_FINAL = 2, COPY = 3 };
enum { STOP = -1 };  // KIND of what stands where a row would, for a block that is to end
enum { EPOCH_SHIFT = 24 };

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

// Poll until the word reaches `target`. False: the job was aborted, or `limit_ns` is over, which aborts it for all.
// Acquiring in each poll costs the L1 cache's contents, of which a walk keeps nothing; a fence after relaxed polls would cost
// a MEMBAR between the flag and the work. The clock is not read before it is likely to matter.
__device__ __forceinline__ bool wait_for(const int64* word, int64 target, int64* abort, int64 limit_ns) {
  int64 deadline = 0;
  for (int64 turn = 1; load_acquire(word) < target; turn++) {
#ifdef BUSBW_CPU_SHIM
    shim::pause();
#endif
    if (turn % 256) continue;
    if (load_acquire(abort)) return false;
    const int64 now = nanoseconds();
    if (turn == 256) deadline = now + limit_ns;
    if (now > deadline) {
      store_relaxed(abort, 1);
      return false;
    }
  }
  return true;
}

// One fence for both flags: it is what takes time.
__device__ __forceinline__ void post(const Row& row, int64 stamp) {
  if (!row.post && !row.post2) return;
  fence();
  if (row.post) store_relaxed((int64*)row.post, stamp + row.post_k);
  if (row.post2) store_relaxed((int64*)row.post2, stamp + row.post2_k);
}

// Start to copy a row into shared memory, past L1 and registers; `finish_fetches` waits for all that this thread started.
__device__ __forceinline__ void fetch(Row* to, const Row* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#pragma unroll
  for (int piece = 0; piece < (int)(sizeof(Row) / 16); piece++)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared((char*)to + 16 * piece)),
                 "l"(__cvta_generic_to_global((const char*)from + 16 * piece))
                 : "memory");
#else
  *to = *from;
#endif
}

__device__ __forceinline__ void finish_fetches() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Rows in shared memory: the next one is fetched while slow threads may still look at the row before this one.
enum { HELD = 4 };

// A block's walk. All but the rows and `first` is thread 0's, and lies in shared memory since registers are for the data.
struct Walker {
  Row held[HELD];
  unsigned first;      // thread of the rank's that this block begins with; never changes
  const Row* code[2];  // of the rank, by the epoch's parity
  int64 rows;          // of an all-reduce
  int64 epoch, end;    // all-reduces from this one on, before that one
  int64 row;           // the row whose turn it is
  int64* arrived;
  int64 meeting;  // what *arrived holds once the rank's blocks have met in its latest call
  int64 blocks;   // of the rank
  bool posts;     // this block publishes what the rank does until its next call
  bool failed;    // the job has ended early
};

// Thread 0 before row `slot`: until the row may run, or is marked as none.
__device__ __forceinline__ void begin(Walker& me, unsigned slot, int64* abort, int64 limit_ns) {
  Row& row = me.held[slot % HELD];
  finish_fetches();
  bool stop = me.failed || me.epoch == me.end;
  if (!stop) {
    const bool last = me.row + 1 == me.rows;  // the first row of the next epoch comes after it
    if (!last || me.epoch + 1 < me.end)
      fetch(&me.held[(slot + 1) % HELD], me.code[(me.epoch + last) & 1] + (last ? 0 : me.row + 1));
    stop = row.wait && !wait_for((const int64*)row.wait, (me.epoch << EPOCH_SHIFT) + row.wait_k, abort, limit_ns);
    if (stop) finish_fetches();
  }
  if (stop) row.kind = STOP;
}

// Thread 0 after a row, when its block is done with it.
__device__ __forceinline__ void end(Walker& me, const Row& row, int64* abort, int64 limit_ns) {
  const bool meets = row.fn && me.blocks > 1;
  if (meets) {
    me.meeting += me.blocks;
    me.posts = add_acquire_release(me.arrived, 1) + 1 == me.meeting;
  }
  if (me.posts) post(row, me.epoch << EPOCH_SHIFT);
  // What follows may read what any block of the rank wrote.
  if (meets && !me.posts) me.failed = !wait_for(me.arrived, me.meeting, abort, limit_ns);
  if (++me.row == me.rows) {
    me.row = 0;
    me.epoch++;
  }
}

// code: rows of all ranks of this device, those of even epochs, then `rows_in_all` rows on those of odd ones.
// first, rows, calls: [ranks] where a rank's rows begin, how many they are, how many of them call something.
// arrived: [ranks] words, 0 before epoch `epoch_0`: blocks that have finished a call of their rank, ever.
// Runs all-reduces `epoch` ... epoch + inner - 1. abort: one word, for all devices; limit_ns: patience of one wait.
//
// Thread 0 of a block speaks with other blocks. A row has a barrier before its call, which passes on what thread 0 has waited
// for, and one after it, which gathers what the block wrote. Two blocks a processor: 64 registers a thread.
extern "C" __global__ void __launch_bounds__(BUSBW_THREADS, 2)
    walk(const Row* code, int64 rows_in_all, const int64* first, const int64* rows, const int64* calls, int64* arrived,
         int64 blocks_a_rank, int64 epoch_0, int64 epoch, int64 inner, int64* abort, int64 limit_ns) {
#ifdef BUSBW_CPU_SHIM
  Walker& me = shim::shared<Walker>();
#else
  __shared__ Walker me;
#endif
  const unsigned rank = blockIdx.x / (unsigned)blocks_a_rank, block = blockIdx.x % (unsigned)blocks_a_rank;
  if (threadIdx.x == 0) {
    me.code[0] = code + first[rank];
    me.code[1] = me.code[0] + rows_in_all;
    me.rows = rows[rank];
    me.epoch = epoch;
    me.end = me.rows ? epoch + inner : epoch;
    me.row = 0;
    me.arrived = arrived + rank;
    me.meeting = (epoch - epoch_0) * calls[rank] * blocks_a_rank;
    me.blocks = blocks_a_rank;
    me.first = block * blockDim.x;
    me.posts = block == 0;
    me.failed = false;
    if (me.epoch < me.end) fetch(&me.held[0], me.code[epoch & 1]);
  }
  for (unsigned slot = 0;; slot++) {
    const Row& row = me.held[slot % HELD];
    if (threadIdx.x == 0) begin(me, slot, abort, limit_ns);
    __syncthreads();
    if (row.kind == STOP) return;
    if (row.fn) {
      const busbw::Share share = {me.first + threadIdx.x, (unsigned)blocks_a_rank * blockDim.x};
      execute(row, share);
      __syncthreads();
    }
    if (threadIdx.x == 0) end(me, row, abort, limit_ns);
  }
}

// rows: of one step, all ranks; grid: (blocks a row, rows).
extern "C" __global__ void __launch_bounds__(BUSBW_THREADS, 2) run_rows(const Row* rows) {
  const busbw::Share share = {(int64)blockIdx.x * blockDim.x + threadIdx.x, (int64)gridDim.x * blockDim.x};
  const Row& row = rows[blockIdx.y];
  execute(row, share);
}
