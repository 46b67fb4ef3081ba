// Which instruction set the kernels use: chosen once, when the process first asks.
#pragma once

#include <cstdlib>
#include <string_view>

namespace sprat {

enum class Isa { baseline, avx2 };

// Whether this CPU, and the operating system for its registers, can run a variant.
inline bool supports(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) {
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
           __builtin_cpu_supports("f16c") != 0;
  }
#endif
  return isa == Isa::baseline;
}

// The best supported variant, unless SPRAT_ISA=baseline. sprat.kernels checks the variable.
inline Isa active_isa() {
  static const Isa isa = [] {
    const char* forced = std::getenv("SPRAT_ISA");
    const bool plain = forced != nullptr && std::string_view(forced) == "baseline";
    return !plain && supports(Isa::avx2) ? Isa::avx2 : Isa::baseline;
  }();
  return isa;
}

}  // namespace sprat

// In front of a function that only runs where `supports(Isa::avx2)`.
#if defined(__x86_64__)
#define SPRAT_AVX2 __attribute__((target("avx2,fma,f16c")))
#endif
