// One CUDA thread as a thread of this machine: its registers' values, its memory, its barrier. ptx_translate.py writes code for it.
//
// Memory is an arena, mapped at the addresses the program was lowered to, and a block's shared memory; any other access, and
// any that is not aligned, ends the run. Under ThreadSanitizer
//
//   weak and volatile accesses   are plain: two of them that nothing orders are a race
//   ld.acquire, atom.acq_rel     are C++'s
//   st.relaxed                   is a release where this thread's fence came after all that it has to publish: a fence is no
//                                C++ fence, of which ThreadSanitizer knows nothing. An access to global memory, a store to shared
//                                memory or a barrier between the two counts as not published, which is stricter than PTX
//   bar.sync                     is a barrier
//   cp.async                     copies at once or when it is waited for, at random
//
// A 64-bit strong store must not be less than what the word held: flags only grow.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>
#include <type_traits>
#include <vector>

static const uint64_t SHARED_WINDOW = 1 << 16;  // addresses of shared memory begin here: 0 is no address
enum Space { GENERIC, GLOBAL, SHARED };
enum Exit { FINE = 0, USAGE = 3, BAD_ACCESS = 4, WENT_BACK = 5 };

struct Arena {
  uint64_t base, size;
};
static Arena arena;
static unsigned delay_us;  // at most, of a late thread before each flag it stores

template <typename T, typename R>
T as(R stored) {
  if (std::is_floating_point<T>::value) {
    T number;
    typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type bits = stored;
    memcpy(&number, &bits, sizeof(T) < sizeof bits ? sizeof(T) : sizeof bits);
    return number;
  }
  return (T)stored;
}

template <typename R, typename T>
void set(R& into, T value) {  // a narrower integer is extended as its sign says
  if (std::is_floating_point<T>::value) {
    typename std::conditional<sizeof(T) == 4, uint32_t, uint64_t>::type bits;
    memcpy(&bits, &value, sizeof bits);
    into = (R)bits;
  } else {
    into = (R)value;
  }
}

struct Thread {
  uint32_t thread, threads, block, blocks, block_y;
  uint8_t* shared;
  unsigned shared_bytes;
  pthread_barrier_t* together;  // null where threads run one after the other
  uint32_t random;
  bool late;
  bool fenced = false;
  struct Copy {
    uint64_t to, from;
  };
  std::vector<Copy> copies = {};

  uint32_t draw() {
    random ^= random << 13;
    random ^= random >> 17;
    return random ^= random << 5;
  }

  // Asleep, not yielding: where programs of others run too, who yields waits for all of them.
  void let_others_run() {
    if (together && draw() % 2) usleep(draw() % 50);
  }

  [[noreturn]] void refuse(const char* what, uint64_t at, unsigned bytes) {
    fprintf(stderr, "block %u thread %u: %s of %u bytes at %#llx\n", block, thread, what, bytes, (unsigned long long)at);
    _exit(BAD_ACCESS);
  }

  void aligned(uint64_t at, unsigned bytes) {
    if (at % bytes) refuse("misaligned access", at, bytes);
  }

  bool is_shared(uint64_t at, unsigned bytes) {
    return at >= (uint64_t)shared && at + bytes <= (uint64_t)shared + shared_bytes;
  }
  uint64_t from_shared(uint64_t at) { return at - SHARED_WINDOW + (uint64_t)shared; }
  uint64_t to_shared(uint64_t at) { return at - (uint64_t)shared + SHARED_WINDOW; }

  template <typename T, Space SPACE>
  T* place(uint64_t at) {
    aligned(at, sizeof(T));
    if (SPACE == SHARED) at = from_shared(at);
    const bool is_global = at >= arena.base && at + sizeof(T) <= arena.base + arena.size;
    if (SPACE == SHARED ? !is_shared(at, sizeof(T)) : SPACE == GLOBAL ? !is_global : !is_global && !is_shared(at, sizeof(T)))
      refuse("stray access", at, sizeof(T));
    if (SPACE != SHARED) fenced = false;
    return (T*)at;
  }

  template <typename T, Space SPACE>
  T load(uint64_t at) {
    return *place<T, SPACE>(at);
  }

  template <typename T, Space SPACE>
  void store(uint64_t at, T value) {
    if (SPACE == SHARED) fenced = false;
    *place<T, SPACE>(at) = value;
    if (together && draw() % 16 == 0) sched_yield();
  }

  template <typename T>
  T load_acquire(uint64_t at) {
    let_others_run();
    return __atomic_load_n(place<T, GLOBAL>(at), __ATOMIC_ACQUIRE);
  }

  template <typename T>
  T load_relaxed(uint64_t at) {
    let_others_run();
    return __atomic_load_n(place<T, GLOBAL>(at), __ATOMIC_RELAXED);
  }

  template <typename T, int ORDER>
  T add(uint64_t at, T value) {
    let_others_run();
    return __atomic_fetch_add(place<T, GLOBAL>(at), value, ORDER);
  }

  void fence() {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    fenced = true;
  }

  template <typename T>
  void store_relaxed(uint64_t at, T value) {
    if (late && delay_us) usleep(draw() % delay_us);
    const bool publishes = fenced;
    T* const word = place<T, GLOBAL>(at);
    const T before = __atomic_load_n(word, __ATOMIC_RELAXED);  // no exchange, which would pass on what the word's last store did
    if (publishes) __atomic_store_n(word, value, __ATOMIC_RELEASE);
    else __atomic_store_n(word, value, __ATOMIC_RELAXED);
    fenced = publishes;  // a second flag after the same fence
    if ((std::make_signed_t<T>)before > (std::make_signed_t<T>)value) {
      fprintf(stderr, "block %u: a flag went back at %#llx, from %llx to %llx\n", block, (unsigned long long)at,
              (unsigned long long)before, (unsigned long long)value);
      _exit(WENT_BACK);
    }
  }

  void barrier() {
    fenced = false;
    if (together) pthread_barrier_wait(together);
  }

  void copy_now(Copy copy) {
    for (int i = 0; i < 2; i++) store<uint64_t, SHARED>(copy.to + 8 * i, load<uint64_t, GLOBAL>(copy.from + 8 * i));
  }
  void copy_16(uint64_t to, uint64_t from) {
    aligned(to, 16);
    aligned(from, 16);
    if (draw() % 2) copy_now({to, from});
    else copies.push_back({to, from});
  }
  void finish_copies() {
    for (const Copy& copy : copies) copy_now(copy);
    copies.clear();
  }

  uint64_t nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
  }
};

template <typename T>
T shift_left(T x, uint32_t by) {
  return by >= 8 * sizeof(T) ? 0 : (T)(x << by);
}

template <typename T>
T shift_right(T x, uint32_t by) {
  if (by < 8 * sizeof(T)) return (T)(x >> by);
  return std::is_signed<T>::value && x < 0 ? (T)-1 : 0;
}

static inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selection) {
  const uint64_t all = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t nibble = selection >> 4 * i & 15;
    uint8_t byte = (uint8_t)(all >> 8 * (nibble & 7));
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    result |= (uint32_t)byte << 8 * i;
  }
  return result;
}

template <typename I, typename R>
I toward_zero(R x) {
  if (std::isnan(x)) return 0;
  if (x <= (R)std::numeric_limits<I>::min()) return std::numeric_limits<I>::min();
  if (x >= (R)std::numeric_limits<I>::max()) return std::numeric_limits<I>::max();
  return (I)x;
}

// Conversions as PTX defines them: to nearest even, a NaN to the canonical one, float8 saturating.
static inline float float_from_f16(uint16_t stored) {
  _Float16 number;
  memcpy(&number, &stored, 2);
  return (float)number;
}

static inline uint16_t f16_from_float(float x) {
  if (std::isnan(x)) return 0x7fff;
  const _Float16 number = (_Float16)x;
  uint16_t stored;
  memcpy(&stored, &number, 2);
  return stored;
}

static inline float float_from_bf16(uint16_t stored) { return as<float>((uint32_t)stored << 16); }

static inline uint16_t bf16_from_float(float x) {
  uint32_t bits;
  set(bits, x);
  return std::isnan(x) ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float float_from_float8(uint8_t stored, int exponent_bits) {
  const int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (stored & 127) >> mantissa_bits, mantissa = stored & ((1 << mantissa_bits) - 1);
  float x = std::ldexp((float)mantissa + (exponent ? 1 << mantissa_bits : 0), std::max(exponent, 1) - bias - mantissa_bits);
  if (exponent_bits == 4 && (stored & 127) == 127) x = NAN;
  if (exponent_bits == 5 && exponent == 31) x = mantissa ? NAN : INFINITY;
  return stored & 128 ? -x : x;
}

// The nearest of all codes, by looking at each.
static inline uint8_t float8_from_float(float x, int exponent_bits) {
  if (std::isnan(x)) return 0x7f;
  const int largest = exponent_bits == 4 ? 0x7e : 0x7b;
  // What is too large becomes the largest, infinity too, which is as far from one code as from another.
  const double magnitude = std::min(std::fabs((double)x), (double)float_from_float8(largest, exponent_bits));
  int best = 0;
  for (int code = 1; code <= largest; code++) {
    const double distance = std::fabs(magnitude - float_from_float8(code, exponent_bits));
    const double before = std::fabs(magnitude - float_from_float8(best, exponent_bits));
    if (distance < before || (distance == before && code % 2 == 0)) best = code;
  }
  return (uint8_t)(best | (std::signbit(x) ? 128 : 0));
}

static inline float float_from_e4m3(uint8_t stored) { return float_from_float8(stored, 4); }
static inline float float_from_e5m2(uint8_t stored) { return float_from_float8(stored, 5); }
static inline uint8_t e4m3_from_float(float x) { return float8_from_float(x, 4); }
static inline uint8_t e5m2_from_float(float x) { return float8_from_float(x, 5); }
