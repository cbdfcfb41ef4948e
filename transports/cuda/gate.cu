// Holds a stream until the host lets it go, so that a whole sample is enqueued before the device begins with it (gate.py).
//
// word: pinned host memory that the device reads; with several devices the same word for all, so that they begin together.
// Opens when the word reaches `turn`, or by itself after `limit_ns`: a host that died or blocks must not hang the device.
#include "platform.cuh"

extern "C" __global__ void gate(const long long* word, long long turn, long long limit_ns) {
  const long long deadline = busbw::nanoseconds() + limit_ns;
  // Volatile: every turn reads the host's memory again. Nothing else is published with the word, so no acquire.
  while (*(const volatile long long*)word < turn)
    if (busbw::nanoseconds() > deadline) return;
}
