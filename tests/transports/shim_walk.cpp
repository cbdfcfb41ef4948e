// walk.cu on the CPU: a thread for each CUDA thread of `walk`; `run_rows` one thread after the other.
// Compile with -include cuda_shim.h and walk.cu's own definitions.
#include "walk.cu"

extern "C" long long shim_misaligned() { return shim::misaligned.exchange(0); }

extern "C" void run_walk(unsigned grid, unsigned block, const long long* x) {
  shim::launch_together(grid, block, [&] {
    walk((const Row*)x[0], x[1], (const int64*)x[2], (const int64*)x[3], (const int64*)x[4], (int64*)x[5], x[6], x[7], x[8],
         x[9], (int64*)x[10], x[11]);
  });
}

extern "C" void run_step(unsigned blocks, unsigned block, const void* rows, long long count) {
  for (long long y = 0; y < count; y++)
    shim::launch(blocks, block, [&] {
      blockIdx.y = (unsigned)y;
      run_rows((const Row*)rows);
    });
}
