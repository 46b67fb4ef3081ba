// Several floats at a time, in the vector types of GCC and Clang: the same code becomes SSE2, AVX2
// or NEON, as the function that it is inlined into is compiled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "sprat/isa.hpp"

#define SPRAT_INLINE inline __attribute__((always_inline))

// Defines `name_baseline` and, where there is one, `name_avx2`: the template `name_body` for lanes
// of the instruction set, compiled for it.
#define SPRAT_BASELINE(result, name, parameters, arguments) \
  inline result name##_baseline parameters { return name##_body<::sprat::Lanes<4>> arguments; }
#if defined(__x86_64__)
#define SPRAT_VARIANTS(result, name, parameters, arguments) \
  SPRAT_BASELINE(result, name, parameters, arguments)       \
  SPRAT_AVX2 inline result name##_avx2 parameters {         \
    return name##_body<::sprat::Lanes<8>> arguments;        \
  }
#define SPRAT_DISPATCH(isa, name, arguments) \
  ((isa) == ::sprat::Isa::avx2 ? name##_avx2 arguments : name##_baseline arguments)
#else
#define SPRAT_VARIANTS SPRAT_BASELINE
#define SPRAT_DISPATCH(isa, name, arguments) (static_cast<void>(isa), name##_baseline arguments)
#endif

namespace sprat {

constexpr float lowest = -std::numeric_limits<float>::infinity();

// Weights below this power of e count as zero: the least one is then a normal number.
constexpr float exp_floor = -87.0F;

// GCC takes no size that depends on a parameter.
template <std::size_t count>
struct Vectors;
template <>
struct Vectors<4> {
  using Floats = float __attribute__((vector_size(16)));
  using Ints = std::int32_t __attribute__((vector_size(16)));
  using Words = std::uint32_t __attribute__((vector_size(16)));
};
template <>
struct Vectors<8> {
  using Floats = float __attribute__((vector_size(32)));
  using Ints = std::int32_t __attribute__((vector_size(32)));
  using Words = std::uint32_t __attribute__((vector_size(32)));
};

// A vector of `count` floats, or of integers of their size. Vectors go by reference: as arguments
// or results they would depend on the instruction set.
template <std::size_t count>
struct Lanes {
  static constexpr std::size_t size = count;
  using Floats = typename Vectors<count>::Floats;
  using Ints = typename Vectors<count>::Ints;
  using Words = typename Vectors<count>::Words;

  SPRAT_INLINE static void load(const float* from, Floats& v) { std::memcpy(&v, from, sizeof v); }

  // The first `some` lanes; the others are -infinity.
  SPRAT_INLINE static void load(const float* from, std::size_t some, Floats& v) {
    v = Floats{} + lowest;
    std::memcpy(&v, from, some * sizeof(float));
  }

  SPRAT_INLINE static void store(const Floats& v, float* to) { std::memcpy(to, &v, sizeof v); }

  SPRAT_INLINE static void store(const Floats& v, std::size_t some, float* to) {
    std::memcpy(to, &v, some * sizeof(float));
  }

  SPRAT_INLINE static float sum(const Floats& v) {
    float total = 0.0F;
    for (std::size_t lane = 0; lane < count; ++lane) {
      total += v[lane];
    }
    return total;
  }

  SPRAT_INLINE static float greatest(const Floats& v) {
    float most = v[0];
    for (std::size_t lane = 1; lane < count; ++lane) {
      most = v[lane] > most ? v[lane] : most;
    }
    return most;
  }

  SPRAT_INLINE static bool any(const Ints& v) {
    std::int32_t all = 0;
    for (std::size_t lane = 0; lane < count; ++lane) {
      all |= v[lane];
    }
    return all != 0;
  }

  // x = e^x for x <= 0, and 0 below `exp_floor`. Relative error at most 1e-7 (2 + |x|).
  // With y = x / ln 2, n = round(y) and f = y - n, e^x is 2^n 2^f; 2^f is 1 + f q(f), q a
  // least-squares fit of the relative error on |f| <= 0.5.
  SPRAT_INLINE static void exp(Floats& x) {
    constexpr float rounder = 12582912.0F;  // 1.5 * 2^23: its neighbours are 1 apart.
    const Floats y = x * 1.44269504F;
    const Floats shifted = y + rounder;
    const Floats f = y - (shifted - rounder);
    Floats power = f * 0.00132645911F + 0.00967161916F;
    power = power * f + 0.0555073507F;
    power = power * f + 0.240222409F;
    power = power * f + 0.693147004F;
    power = power * f + 1.0F;
    // Of the bits of `shifted`, the lowest are n.
    const Words bits = reinterpret_cast<Words>(power) + (reinterpret_cast<Words>(shifted) << 23);
    x = reinterpret_cast<Floats>(bits & reinterpret_cast<Words>(x >= exp_floor));
  }
};

}  // namespace sprat
