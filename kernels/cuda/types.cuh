// Element types: how each is stored, and the type its arithmetic is done in. No header of the toolkit is needed.
//
// The names and the rounding are those of busbw's dtypes and CPU backend: the 16-bit and 8-bit floats are widened to
// float, operated on once, and rounded to nearest even. float8 saturates: what is too large becomes the largest finite
// number, as the hardware's conversion and NCCL have it. NaN stays NaN.
#pragma once

#include "platform.cuh"

namespace busbw {

typedef unsigned char byte;
typedef unsigned long long uint64;

__device__ __forceinline__ float float_from_bits(unsigned bits) {
  union { unsigned bits; float number; } both = {bits};
  return both.number;
}

__device__ __forceinline__ unsigned bits_of_float(float number) {
  union { float number; unsigned bits; } both = {number};
  return both.bits;
}

__device__ __forceinline__ unsigned short bfloat16_from_float(float number) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(number));
  return bits;
#else
  unsigned bits = bits_of_float(number);
  // A NaN is cut, not rounded: rounding could carry into the exponent. The bit set keeps it a NaN.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((bits >> 16) | 0x40u);
  return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

// An 8-bit float with EXPONENT and MANTISSA bits; e4m3 has no infinity and one NaN, e5m2 is IEEE's.
template <int EXPONENT, int MANTISSA>
__device__ __forceinline__ float float_from_float8(byte stored) {
  const bool ieee = EXPONENT == 5;
  const int bias = (1 << (EXPONENT - 1)) - 1;
  const unsigned magnitude = stored & 0x7fu, sign = (stored & 0x80u) << 24;
  if (ieee ? magnitude > 0x7cu : magnitude == 0x7fu) return float_from_bits(0x7fffffffu);
  if (ieee && magnitude == 0x7cu) return float_from_bits(sign | 0x7f800000u);
  // Moved to float's places, the exponent is short by the difference of the biases: a product makes up for it, and
  // makes denormals normal.
  const float scale = float_from_bits((unsigned)(127 + 127 - bias) << 23);
  const float number = float_from_bits(magnitude << (23 - MANTISSA)) * scale;
  return float_from_bits(bits_of_float(number) | sign);
}

template <int EXPONENT, int MANTISSA>
__device__ __forceinline__ byte float8_from_float(float number) {
  const bool ieee = EXPONENT == 5;
  const int bias = (1 << (EXPONENT - 1)) - 1;
  const unsigned largest = ieee ? 0x7bu : 0x7eu;
  const unsigned bits = bits_of_float(number), magnitude = bits & 0x7fffffffu;
  const byte sign = (byte)((bits >> 24) & 0x80u);
  if (magnitude > 0x7f800000u) return 0x7f;
  const int exponent = (int)(magnitude >> 23) - 127;
  if (exponent > bias + 1) return (byte)(sign | largest);  // far too large, infinity too
  if (exponent < -bias - MANTISSA) return sign;            // less than half of the least denormal
  const int least = 1 - bias;  // exponent of the least normal number
  unsigned significand = (magnitude & 0x7fffffu) | 0x800000u;
  int drop = 23 - MANTISSA;
  if (exponent < least) drop += least - exponent;
  const unsigned half = 1u << (drop - 1), rest = significand & ((1u << drop) - 1u);
  unsigned kept = significand >> drop;
  if (rest > half || (rest == half && (kept & 1u))) kept += 1u;
  // kept counts from the leading one; a carry out of it moves into the exponent by itself.
  unsigned rounded = exponent < least ? kept : (((unsigned)(exponent + bias - 1)) << MANTISSA) + kept;
  if (rounded > largest) rounded = largest;
  return (byte)(sign | rounded);
}

template <typename NUMBER>
struct Plain {
  typedef NUMBER storage;
  typedef NUMBER number;
  typedef NUMBER bound;  // what check's tables hold
  static __device__ __forceinline__ number widen(storage stored) { return stored; }
  static __device__ __forceinline__ storage narrow(number value) { return value; }
};

template <typename REAL>
struct Real {
  typedef REAL storage;
  typedef REAL number;
  typedef double bound;
  static __device__ __forceinline__ number widen(storage stored) { return stored; }
  static __device__ __forceinline__ storage narrow(number value) { return value; }
};

typedef Real<double> type_float64;
typedef Real<float> type_float32;
typedef Plain<signed char> type_int8;
typedef Plain<unsigned char> type_uint8;
typedef Plain<int> type_int32;
typedef Plain<int64> type_int64;
typedef Plain<uint64> type_uint64;

struct type_float16 {
  typedef unsigned short storage;
  typedef float number;
  typedef double bound;
  static __device__ __forceinline__ float widen(storage stored) { return float_from_half(stored); }
  static __device__ __forceinline__ storage narrow(float value) { return half_from_float(value); }
};

struct type_bfloat16 {
  typedef unsigned short storage;
  typedef float number;
  typedef double bound;
  static __device__ __forceinline__ float widen(storage stored) { return float_from_bits((unsigned)stored << 16); }
  static __device__ __forceinline__ storage narrow(float value) { return bfloat16_from_float(value); }
};

// sm_89 and later convert in hardware, two at a time and by way of float16, which holds every float8.
struct type_float8_e4m3 {
  typedef byte storage;
  typedef float number;
  typedef double bound;
  static __device__ __forceinline__ float widen(storage stored) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    unsigned halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"((unsigned short)stored));
    return float_from_half((unsigned short)halves);
#else
    return float_from_float8<4, 3>(stored);
#endif
  }
  static __device__ __forceinline__ storage narrow(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    unsigned short pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
    return (byte)pair;
#else
    return float8_from_float<4, 3>(value);
#endif
  }
};

struct type_float8_e5m2 {
  typedef byte storage;
  typedef float number;
  typedef double bound;
  static __device__ __forceinline__ float widen(storage stored) {
    return float_from_half((unsigned short)((unsigned)stored << 8));  // e5m2 is the upper byte of a float16
  }
  static __device__ __forceinline__ storage narrow(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    unsigned short pair;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
    return (byte)pair;
#else
    return float8_from_float<5, 2>(value);
#endif
  }
};

}  // namespace busbw
