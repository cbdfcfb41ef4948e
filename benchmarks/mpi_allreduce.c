/* MPI_Allreduce timed from C as busbw times its own: barrier, `inner` calls back to back, slowest rank, median of samples.
 * mpi_allreduce MIN MAX FACTOR: prints "bytes seconds" a size, float32 sum, out-of-place. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  size_t first = atoll(argv[1]), last = atoll(argv[2]), factor = atoll(argv[3]);
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  float *in, *out;
  if (posix_memalign((void **)&in, 4096, last) || posix_memalign((void **)&out, 4096, last)) return 1;
  for (size_t i = 0; i < last / 4; i++) in[i] = (float)(i % 1000);  // not zeros: a hypervisor may share pages of zeros
  memset(out, 1, last);
  for (size_t n = first; n <= last; n *= factor) {
    int inner = n <= 4096 ? 200 : n <= 65536 ? 20 : 1, samples = n <= (1 << 20) ? 60 : n <= (16 << 20) ? 25 : 9;
    double t[64];
    for (int k = -3; k < samples; k++) {
      MPI_Barrier(MPI_COMM_WORLD);
      double start = MPI_Wtime();
      for (int i = 0; i < inner; i++) MPI_Allreduce(in, out, n / 4, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      double mine = (MPI_Wtime() - start) / inner, slowest;
      MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      if (k >= 0) t[k] = slowest;
    }
    qsort(t, samples, sizeof *t, by_value);
    if (!rank) printf("%zu %.9g\n", n, t[samples / 2]), fflush(stdout);
  }
  MPI_Finalize();
  return 0;
}
