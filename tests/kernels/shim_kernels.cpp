// One function a kernel of kernels.cu, that launches it on the CPU: `extern "C"`, a grid, and 64-bit integer arguments.
// Compile with -include cuda_shim.h, -I kernels/cuda and kernels.cu's own definitions.
#include "kernels.cu"

extern "C" long long shim_misaligned() { return shim::misaligned.exchange(0); }

template <typename... A, size_t... I>
static void run(void (*kernel)(A...), unsigned grid, unsigned block, const long long* x, std::index_sequence<I...>) {
  shim::launch(grid, block, [&] { kernel((A)x[I]...); });
}

template <typename... A>
static void run(void (*kernel)(A...), unsigned grid, unsigned block, const long long* x) {
  run(kernel, grid, block, x, std::index_sequence_for<A...>{});
}

#define RUN(name) \
  extern "C" void run_##name(unsigned grid, unsigned block, const long long* x) { run(name, grid, block, x); }

#ifndef BUSBW_BITS_ALONE
RUN(reduce_sum) RUN(reduce_prod) RUN(reduce_min) RUN(reduce_max) RUN(reduce_avg_final)
RUN(many_sum) RUN(many_prod) RUN(many_min) RUN(many_max) RUN(many_avg_final)
RUN(check_range)
#endif
RUN(copy)
#ifdef BUSBW_WITH_BITS
RUN(fill_1) RUN(fill_2) RUN(fill_4) RUN(fill_8)
RUN(check_exact_1) RUN(check_exact_2) RUN(check_exact_4) RUN(check_exact_8)
#endif
