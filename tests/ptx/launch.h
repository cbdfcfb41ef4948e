// The program around a translated kernel: maps the arena's file at its address and launches one grid.
//
//   program FILE BASE BYTES GRID_X GRID_Y BLOCK together|alone DELAY_US SEED PARAMETER...
//
// together: every CUDA thread at once, a thread of this machine each; alone: one after the other, for kernels without barriers.
// Exit status: cuda_thread.h's, or ThreadSanitizer's.
#include <fcntl.h>
#include <sys/mman.h>

#include <memory>
#include <thread>

struct Kernel {
  void (*body)(Thread&, const uint64_t*);
  unsigned parameters, shared_bytes;
};

static int launch(const Kernel& kernel, unsigned grid_x, unsigned grid_y, unsigned block, bool together, unsigned seed,
                  const std::vector<uint64_t>& parameters) {
  struct Block {
    std::unique_ptr<uint8_t[]> shared;
    pthread_barrier_t barrier;
  };
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::thread> threads;
  for (unsigned y = 0; y < grid_y; y++)
    for (unsigned x = 0; x < grid_x; x++) {
      blocks.push_back(std::make_unique<Block>());
      Block& here = *blocks.back();
      here.shared.reset(new uint8_t[kernel.shared_bytes + 16]);
      uint8_t* const shared = (uint8_t*)(((uint64_t)here.shared.get() + 15) / 16 * 16);
      memset(shared, 0xA5, kernel.shared_bytes);
      pthread_barrier_init(&here.barrier, nullptr, block);
      for (unsigned t = 0; t < block; t++) {
        const uint32_t random = seed * 7919u + (y * grid_x + x) * 131u + t * 17u + 1u;
        Thread me = {t, block, x, grid_x, y, shared, kernel.shared_bytes, together ? &here.barrier : nullptr, random, false};
        me.late = me.draw() >> 16 & 1;
        if (together) threads.emplace_back([me, &kernel, &parameters]() mutable { kernel.body(me, parameters.data()); });
        else kernel.body(me, parameters.data());
      }
    }
  for (auto& thread : threads) thread.join();
  return FINE;
}

static int launch_from(int count, char** words, const Kernel& kernel) {
  if (count != 10 + (int)kernel.parameters) {
    fprintf(stderr, "%d words, for %u parameters\n", count, kernel.parameters);
    return USAGE;
  }
  arena = {strtoull(words[2], nullptr, 0), strtoull(words[3], nullptr, 0)};
  const int file = open(words[1], O_RDWR);
  void* const at = (void*)arena.base;
  if (mmap(at, arena.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0) != at) {
    perror("mmap");
    return USAGE;
  }
  delay_us = atoi(words[8]);
  std::vector<uint64_t> parameters;
  for (int i = 10; i < count; i++) parameters.push_back((uint64_t)strtoll(words[i], nullptr, 0));
  return launch(kernel, atoi(words[4]), atoi(words[5]), atoi(words[6]), words[7][0] == 't', atoi(words[9]), parameters);
}
