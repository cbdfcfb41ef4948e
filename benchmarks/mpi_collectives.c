/* The MPI library's own collectives, timed from C as busbw times its own: an agreed start, calls back to back that last 20 us or
 * more in all, the slowest rank, a quantile of samples.
 *
 * mpi_collectives FIFO: each rank reads commands from FIFO.<rank>, so that it sleeps where it has none:
 *
 *     ALGORITHM COLLECTIVE out|in BYTES SECONDS QUANTILE        the algorithm is for others to read
 *
 * and rank 0 prints the seconds a call. float32 sum, root 0; BYTES are those of the larger buffer, as busbw and nccl-tests count.
 * Out of place a broadcast is MPI_Bcast and the root's memcpy into its output. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int rank, ranks, in_place, count; /* count: elements of a block */
static float *in, *out;
static MPI_Comm world;

static void all_reduce(void) { MPI_Allreduce(in_place ? MPI_IN_PLACE : in, out, count, MPI_FLOAT, MPI_SUM, world); }

static void reduce_scatter(void) {
  MPI_Reduce_scatter_block(in_place ? MPI_IN_PLACE : in, out, count, MPI_FLOAT, MPI_SUM, world);
}

static void all_gather(void) {
  MPI_Allgather(in_place ? MPI_IN_PLACE : in, count, MPI_FLOAT, out, count, MPI_FLOAT, world);
}

static void broadcast(void) {
  MPI_Bcast(in_place || rank ? out : in, count, MPI_FLOAT, 0, world);
  if (!in_place && !rank) memcpy(out, in, sizeof(float) * count);
}

static void reduce(void) {
  MPI_Reduce(!in_place ? in : rank ? out : MPI_IN_PLACE, out, count, MPI_FLOAT, MPI_SUM, 0, world);
}

static void alltoall(void) { MPI_Alltoall(in, count, MPI_FLOAT, out, count, MPI_FLOAT, world); }

static void gather(void) {
  float *own = out + (size_t)rank * count;
  MPI_Gather(!in_place ? in : rank ? own : MPI_IN_PLACE, count, MPI_FLOAT, out, count, MPI_FLOAT, 0, world);
}

static void scatter(void) {
  float *own = out + (size_t)rank * count;
  MPI_Scatter(in_place ? out : in, count, MPI_FLOAT, !in_place ? out : rank ? own : MPI_IN_PLACE, count, MPI_FLOAT, 0, world);
}

static void sendrecv(void) {
  int to = (rank + 1) % ranks, of = (rank + ranks - 1) % ranks;
  MPI_Sendrecv(in, count, MPI_FLOAT, to, 0, out, count, MPI_FLOAT, of, 0, world, MPI_STATUS_IGNORE);
}

static void pingpong(void) {
  int peer = rank ^ 1;
  if (peer >= ranks) return;
  if (rank % 2 == 0) MPI_Send(in, count, MPI_FLOAT, peer, 0, world);
  MPI_Recv(out, count, MPI_FLOAT, peer, 0, world, MPI_STATUS_IGNORE);
  if (rank % 2) MPI_Send(out, count, MPI_FLOAT, peer, 0, world);
}

static const struct {
  const char *name;
  void (*run)(void);
  int blocks, has_in_place; /* blocks: of the larger buffer, 1 or, where 0, one a rank */
} collectives[] = {
    {"all_reduce", all_reduce, 1, 1}, {"reduce_scatter", reduce_scatter, 0, 1}, {"all_gather", all_gather, 0, 1},
    {"broadcast", broadcast, 1, 1},   {"reduce", reduce, 1, 1},                 {"alltoall", alltoall, 0, 0},
    {"gather", gather, 0, 1},         {"scatter", scatter, 0, 1},               {"sendrecv", sendrecv, 1, 0},
    {"pingpong", pingpong, 1, 0},
};

static double now(void) { /* one clock for all processes of a host */
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Seconds a call of the slowest rank. */
static double sample(void (*run)(void), int inner) {
  MPI_Barrier(world);
  double start = now() + 5e-6;
  MPI_Bcast(&start, 1, MPI_DOUBLE, 0, world);
  double began = now();
  for (; began < start; began = now());
  for (int i = 0; i < inner; i++) run();
  double mine = (now() - start) / inner, slowest;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, world);
  return slowest;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum { WARM_UPS = 3, SAMPLES_MIN = 5, SAMPLES_MAX = 1000, INNER_MAX = 2000 };

static double seconds_a_call(void (*run)(void), double seconds, double quantile) {
  static double t[SAMPLES_MAX];
  int inner = 1;
  for (int k = 0; k < WARM_UPS; k++) {
    double once = sample(run, inner);
    if (once * inner > seconds) break; /* one warm-up will do */
    inner = 20e-6 / once + 1;
    if (inner > INNER_MAX) inner = INNER_MAX;
  }
  double until = now() + seconds;
  int n = 0, go_on = 1;
  while (go_on) {
    t[n++] = sample(run, inner);
    go_on = n < SAMPLES_MIN || (n < SAMPLES_MAX && now() < until);
    MPI_Bcast(&go_on, 1, MPI_INT, 0, world);
  }
  qsort(t, n, sizeof *t, by_value);
  return t[(int)(quantile * (n - 1) + 0.5)];
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_dup(MPI_COMM_WORLD, &world);
  MPI_Comm_rank(world, &rank);
  MPI_Comm_size(world, &ranks);
  char path[4096], line[256], name[64], mode[8];
  double seconds, quantile;
  size_t bytes;
  snprintf(path, sizeof path, "%s.%d", argv[1], rank);
  FILE *commands = fopen(path, "r");
  while (commands && fgets(line, sizeof line, commands)) {
    if (sscanf(line, "%*s %63s %7s %zu %lf %lf", name, mode, &bytes, &seconds, &quantile) != 5) return 1;
    for (size_t c = 0; c < sizeof collectives / sizeof *collectives; c++) {
      if (strcmp(collectives[c].name, name)) continue;
      if (posix_memalign((void **)&in, 4096, bytes) || posix_memalign((void **)&out, 4096, bytes)) return 1;
      /* Not zeros: a hypervisor may share pages of zeros. In place they are, as sums feed the next sum. */
      in_place = !strcmp(mode, "in");
      for (size_t i = 0; i < bytes / sizeof(float); i++) in[i] = (float)(i % 1000);
      memset(out, !in_place, bytes);
      count = bytes / sizeof(float) / (collectives[c].blocks ? collectives[c].blocks : ranks);
      double result = seconds_a_call(collectives[c].run, seconds, quantile);
      if (!rank) printf("%.9g\n", result), fflush(stdout);
      free(in), free(out);
    }
  }
  MPI_Finalize();
  return 0;
}
